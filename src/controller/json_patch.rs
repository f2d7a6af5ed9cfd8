//! JSON Patches (RFC 6902) as the API server compares them.
//!
//! Its `test` compares the text of a string with how it writes the stored one itself, and Go's encoder escapes what has a
//! meaning in HTML. Written otherwise, a value with `&`, `<` or `>` is never equal to itself.

use ::json_patch::Patch as Operations;
use kube::{
    Api, Error, Resource,
    api::{Patch, PatchParams},
    core::request::Request,
};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Which part of an object is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object itself.
    Object,
    /// Its status.
    Status,
}

/// Sends a patch; answers with the object as it is then.
pub async fn send<K>(
    api: &Api<K>,
    part: Part,
    name: &str,
    params: &PatchParams,
    operations: Operations,
) -> Result<K, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let request = Request::new(api.resource_url());
    let patch = Patch::Json::<()>(operations);
    let request = match part {
        Part::Object => request.patch(name, params, &patch),
        Part::Status => request.patch_subresource("status", name, params, &patch),
    };
    let request = request.map_err(Error::BuildRequest)?;
    api.clone().into_client().request(request.map(|body| escaped(&body))).await
}

/// JSON text with the escapes that Go's encoder uses. These characters stand in JSON text inside strings only.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len() + text.len() / 32);
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let (code, after): (&[u8], _) = match (byte, after) {
            (b'&', _) => (b"\\u0026", after),
            (b'<', _) => (b"\\u003c", after),
            (b'>', _) => (b"\\u003e", after),
            // U+2028 and U+2029 in UTF-8.
            (0xe2, [0x80, 0xa8, after @ ..]) => (b"\\u2028", after),
            (0xe2, [0x80, 0xa9, after @ ..]) => (b"\\u2029", after),
            _ => (std::slice::from_ref(&rest[0]), after),
        };
        escaped.extend_from_slice(code);
        rest = after;
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;
    use serde_json::{Value, json};

    #[test]
    fn text_is_escaped_as_the_api_server_escapes_it_and_means_the_same() {
        let value =
            json!([{"op": "test", "path": "/data/a&b", "value": "if a < b && c > \u{2028}\u{2029}d"}]);
        let text = escaped(value.to_string().as_bytes());
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(text.contains(r"if a \u003c b \u0026\u0026 c \u003e \u2028\u2029d"), "{text}");
        assert!(text.contains(r"/data/a\u0026b"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
        let plain = json!({"ä€漢字🚒": "\u{2027}\u{202a}\"\\\n"}).to_string();
        assert_eq!(escaped(plain.as_bytes()), plain.as_bytes());
    }
}
