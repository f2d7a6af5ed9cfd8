//! Addresses of channels: what is written in a configuration, before any name is resolved.

use crate::config::Outgoing;
use http::Uri;
use std::net::{IpAddr, Ipv4Addr};

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
    if let Some(what) = stands_for(host).and_then(|address| outgoing.refusal(address)) {
        return Err(format!("its address is {what}: add it to outgoing.allowedNetworks if that is meant"));
    }
    Ok(uri)
}

/// The host, if it is an address and no name.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The address that a host stands for whatever a resolver says: one that is written as such, in whichever way, or this
/// machine.
fn stands_for(host: &str) -> Option<IpAddr> {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    literal(&name).or_else(|| number(&name).map(IpAddr::V4))
}

/// `127.1`, `2130706433`, `0x7f.0.0.1`: resolvers read these as addresses, too.
fn number(host: &str) -> Option<Ipv4Addr> {
    let part = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    };
    let parts: Vec<u32> = host.split('.').map(part).collect::<Option<_>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() < 4)?;
    // The last one fills what the others leave.
    let room = 32 - 8 * first.len();
    if first.iter().any(|byte| *byte > 255) || u64::from(*last) >> room != 0 {
        return None;
    }
    let high = first.iter().enumerate().fold(0, |sum, (i, byte)| sum | byte << (24 - 8 * i));
    Some(Ipv4Addr::from(high | last))
}
