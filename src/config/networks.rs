//! Where requests to channels may go: public addresses, and of the others those that are allowed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Where requests to channels may go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outgoing {
    /// Networks that may be reached although they are not public.
    pub allowed_networks: Vec<Network>,
    /// Further certificate authorities, a PEM file.
    pub ca_file: Option<std::path::PathBuf>,
}

impl Outgoing {
    /// Whether the administrator allowed this address by name of its network.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allowed_networks.iter().any(|network| network.contains(address.to_canonical()))
    }

    /// Why no request may go to this address, in words.
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        special(address).filter(|_| !self.allows(address))
    }
}

/// What an address is, unless it is a public one. What stands for an address of IPv4 inside one of IPv6 is judged by
/// the former.
pub fn special(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => special_v4(v4),
            None => special_v6(v6),
        },
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    // https://www.iana.org/assignments/iana-ipv4-special-registry
    const NETWORKS: [(&str, &str); 16] = [
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    ];
    first(&NETWORKS, IpAddr::V4(address))
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    // https://www.iana.org/assignments/iana-ipv6-special-registry; only 2000::/3 is handed out to the public.
    const NETWORKS: [(&str, &str); 12] = [
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("fc00::/7", "a unique local one"),
        ("ff00::/8", "multicast"),
        ("64:ff9b:1::/48", "a local translation"),
        ("100::/64", "a discarding one"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved for documentation"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "reserved"),
    ];
    let public = Network { address: Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0).into(), bits: 3 };
    first(&NETWORKS, IpAddr::V6(address))
        .or_else(|| (!public.contains(IpAddr::V6(address))).then_some("reserved"))
}

fn first(networks: &[(&str, &'static str)], address: IpAddr) -> Option<&'static str> {
    let is_in = |text: &str| text.parse().is_ok_and(|network: Network| network.contains(address));
    networks.iter().find(|(network, _)| is_in(network)).map(|(_, what)| *what)
}

/// The IPv4 address that translation or tunnelling takes out of this one.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        // IPv4-compatible (long deprecated), NAT64, 6to4.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
            _ => return false,
        };
        let differ = ours ^ theirs;
        self.bits == 0 || differ >> (width - u32::from(self.bits)) == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no range of addresses: write 10.0.0.0/8, fd00::/8 or one address");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        let network = Network { address, bits };
        match bits <= width {
            true => Ok(network),
            false => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_open_and_all_others_say_what_they_are() {
        let table = [
            ("1.1.1.1", None),
            ("52.29.1.2", None),
            ("172.15.255.255", None),
            ("172.32.0.1", None),
            ("100.63.255.255", None),
            ("2606:4700::1111", None),
            ("2a00:1450:4001::200e", None),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.254", Some("loopback")),
            ("0.0.0.0", Some("unspecified")),
            ("0.1.2.3", Some("unspecified")),
            ("10.255.0.1", Some("private")),
            ("172.16.0.1", Some("private")),
            ("172.31.255.255", Some("private")),
            ("192.168.1.1", Some("private")),
            ("169.254.169.254", Some("link-local")),
            ("100.64.0.1", Some("shared by a carrier")),
            ("224.0.0.1", Some("multicast")),
            ("255.255.255.255", Some("reserved")),
            ("198.51.100.7", Some("reserved for documentation")),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("fd12:3456::1", Some("a unique local one")),
            ("fc00::1", Some("a unique local one")),
            ("ff02::1", Some("multicast")),
            ("2001:db8::1", Some("reserved for documentation")),
            ("4000::1", Some("reserved")),
            // The same addresses of IPv4, dressed up.
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:169.254.169.254", Some("link-local")),
            ("::ffff:1.1.1.1", None),
            ("::127.0.0.1", Some("loopback")),
            ("64:ff9b::10.0.0.1", Some("private")),
            ("64:ff9b::1.1.1.1", None),
            ("2002:a00:1::1", Some("private")),
            ("2002:101:101::1", None),
        ];
        for (address, expected) in table {
            assert_eq!(special(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_a_network_and_no_more_than_that() {
        let allowed = |networks: &[&str]| Outgoing {
            allowed_networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            ..Outgoing::default()
        };
        let refused =
            |outgoing: &Outgoing, address: &str| outgoing.refusal(address.parse().unwrap()).is_some();
        let outgoing = allowed(&["10.1.0.0/16", "127.0.0.1", "fd00::/8"]);
        for address in ["10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "fd00::1", "8.8.8.8"] {
            assert!(!refused(&outgoing, address), "{address}");
        }
        for address in ["10.2.0.1", "127.0.0.2", "fc00::1", "::1"] {
            assert!(refused(&outgoing, address), "{address}");
        }
        assert!(!refused(&allowed(&["0.0.0.0/0"]), "127.0.0.1"));
        assert!(refused(&allowed(&["0.0.0.0/0"]), "::1"));
    }

    #[test]
    fn a_text_that_is_no_network_is_an_error() {
        for text in
            ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "example.com", "10.0.0.0/-1", "10.0.0.0/8/8"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
