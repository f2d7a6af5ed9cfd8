//! Signatures after Standard Webhooks: HMAC-SHA256 over id, time and body.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

/// The secret of a file: `whsec_` and base64 of 24 to 64 bytes. The words never repeat it.
pub fn secret(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || "the secret is not whsec_ and base64 of 24 to 64 bytes".to_owned();
    let encoded = text.trim().strip_prefix("whsec_").ok_or_else(wrong)?;
    let bytes = STANDARD.decode(encoded).map_err(|_| wrong())?;
    match bytes.len() {
        24..=64 => Ok(bytes),
        _ => Err(wrong()),
    }
}

/// The header `webhook-signature`.
pub fn signature(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}
