//! Addresses of channels: what is written in a configuration, before any name is resolved.

use crate::config::Outgoing;
use http::Uri;
use std::net::IpAddr;

/// The address of a receiver, or what is wrong with it; the words never repeat the address, which may be a secret.
///
/// Plain http is for networks that the administrator allowed: whether the address lies in one of them is known when
/// the name is resolved.
pub fn parse(text: &str, outgoing: &Outgoing) -> Result<Uri, String> {
    let text = text.trim();
    let uri: Uri = text.parse().map_err(|_| "it is no address: write https://host/path".to_owned())?;
    let plain = match uri.scheme_str() {
        Some("https") => false,
        Some("http") => true,
        _ => return Err("it does not begin with https://".into()),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("it names no host")?;
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("it holds a user name; use tokenFile for what a receiver wants to know".into());
    }
    if plain && outgoing.allowed_networks.is_empty() {
        return Err("it begins with http://, which only receivers in outgoing.allowedNetworks may".into());
    }
    if let Some(what) = literal(host).and_then(|address| outgoing.refusal(address)) {
        return Err(format!("its address is {what}: add it to outgoing.allowedNetworks if that is meant"));
    }
    Ok(uri)
}

/// The host, if it is an address and no name.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
