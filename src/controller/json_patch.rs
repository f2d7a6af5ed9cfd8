//! JSON Patches (RFC 6902) as the API server compares them.
//!
//! Its `test` compares the text of a string with how it writes the stored one itself, and Go's encoder escapes what has a
//! meaning in HTML. Written otherwise, a value with `&`, `<` or `>` is never equal to itself.

use kube::{
    Api, Error, Resource,
    api::{Patch, PatchParams},
    core::request::Request,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

/// Which part of an object is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object itself.
    Object,
    /// Its status.
    Status,
}

/// Sends a list of operations; answers with the object as it is then.
pub async fn send<K>(
    api: &Api<K>,
    part: Part,
    name: &str,
    params: &PatchParams,
    operations: &Value,
) -> Result<K, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let request = Request::new(api.resource_url());
    let body = serde_json::to_vec(operations).map_err(Error::SerdeError)?;
    // The body is our own, since kube would have it parsed into operations and written once more.
    let patch = Patch::Json::<()>(::json_patch::Patch(Vec::new()));
    let request = match part {
        Part::Object => request.patch(name, params, &patch),
        Part::Status => request.patch_subresource("status", name, params, &patch),
    };
    let request = request.map_err(Error::BuildRequest)?;
    api.clone().into_client().request(request.map(|_| escaped(&body))).await
}

/// JSON text with the escapes that Go's encoder uses. These characters stand in JSON text inside strings only.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len() + text.len() / 32);
    let mut copied = 0;
    for (at, byte) in text.iter().enumerate() {
        let (code, length): (&[u8], _) = match (byte, &text[at + 1..]) {
            (b'&', _) => (b"\\u0026", 1),
            (b'<', _) => (b"\\u003c", 1),
            (b'>', _) => (b"\\u003e", 1),
            // U+2028 and U+2029 in UTF-8.
            (0xe2, [0x80, 0xa8, ..]) => (b"\\u2028", 3),
            (0xe2, [0x80, 0xa9, ..]) => (b"\\u2029", 3),
            _ => continue,
        };
        escaped.extend_from_slice(&text[copied..at]);
        escaped.extend_from_slice(code);
        copied = at + length;
    }
    escaped.extend_from_slice(&text[copied..]);
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
