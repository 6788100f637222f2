//! Addresses that are not the public internet's.
//!
//! A name that a worker may ask for can resolve to anything, the host's own
//! network among it, so what is listed here needs an entry by address as well
//! (CWE-918). The lists are IANA's special-purpose registries (RFC 6890) and
//! the addresses at which clouds keep instances' credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// What makes an address special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Special {
    /// What it is, for the log.
    pub(super) kind: &'static str,
    /// Leading bits that an entry must fix to grant it: so many as its block
    /// has. 0.0.0.0/0 is all public addresses, and not this machine's own.
    pub(super) bits: u8,
}

const METADATA: &str = "a cloud's metadata service";
const LOOPBACK: &str = "loopback";
const LINK_LOCAL: &str = "link-local";
const PRIVATE: &str = "private";
const MULTICAST: &str = "multicast";
const UNSPECIFIED: &str = "unspecified";
const RESERVED: &str = "reserved";

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(first: u16, second: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), bits)
}

/// The first that has the address counts.
const V4: [(Ipv4Net, &str); 19] = [
    (v4(169, 254, 169, 254, 32), METADATA),
    // Amazon ECS.
    (v4(169, 254, 170, 2, 32), METADATA),
    // Alibaba, Oracle, Azure.
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(192, 0, 0, 192, 32), METADATA),
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(0, 0, 0, 0, 8), UNSPECIFIED),
    (v4(10, 0, 0, 0, 8), PRIVATE),
    (v4(100, 64, 0, 0, 10), PRIVATE),
    (v4(127, 0, 0, 0, 8), LOOPBACK),
    (v4(169, 254, 0, 0, 16), LINK_LOCAL),
    (v4(172, 16, 0, 0, 12), PRIVATE),
    (v4(192, 0, 0, 0, 24), RESERVED),
    (v4(192, 0, 2, 0, 24), RESERVED),
    (v4(192, 88, 99, 0, 24), RESERVED),
    (v4(192, 168, 0, 0, 16), PRIVATE),
    (v4(198, 18, 0, 0, 15), RESERVED),
    (v4(198, 51, 100, 0, 24), RESERVED),
    (v4(203, 0, 113, 0, 24), RESERVED),
    (v4(224, 0, 0, 0, 4), MULTICAST),
];

/// Class E and broadcast.
const V4_RESERVED: Ipv4Net = v4(240, 0, 0, 0, 4);

const V6: [(Ipv6Net, &str); 12] = [
    // Amazon EC2, Google Cloud.
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128), METADATA),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128), METADATA),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), LOOPBACK),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), UNSPECIFIED),
    (v6(0xfe80, 0, 10), LINK_LOCAL),
    (v6(0xfc00, 0, 7), PRIVATE),
    // Site-local, deprecated (RFC 3879).
    (v6(0xfec0, 0, 10), PRIVATE),
    (v6(0xff00, 0, 8), MULTICAST),
    // NAT64 of a network's own (RFC 8215).
    (Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48), RESERVED),
    // Teredo, ORCHID and others of the IETF (RFC 2928).
    (v6(0x2001, 0, 23), RESERVED),
    // Documentation (RFC 3849, RFC 9637).
    (v6(0x2001, 0xdb8, 32), RESERVED),
    (v6(0x3fff, 0, 20), RESERVED),
];

/// All that IANA has given out as public so far (RFC 4291, 2.4).
const V6_PUBLIC: Ipv6Net = v6(0x2000, 0, 3);

/// NAT64's well-known prefix (RFC 6052, 2.1): the last 32 bits are where a
/// packet goes.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 96);

/// 6to4 (RFC 3056): the 32 bits after the prefix are where a packet goes.
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 16);

/// What makes `address` special; `None` for a public one.
pub(super) fn special(address: IpAddr) -> Option<Special> {
    match address.to_canonical() {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    let reserved = [(V4_RESERVED, RESERVED)];
    let mut blocks = V4.iter().chain(&reserved);
    let (block, kind) = blocks.find(|(block, _)| block.contains(&address))?;
    Some(Special { kind, bits: block.prefix_len() })
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    let [_, second, third, .., seventh, last] = address.segments();
    let within = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    if NAT64.contains(&address) {
        let special = within(seventh, last)?;
        return Some(Special { bits: NAT64.prefix_len() + special.bits, ..special });
    }
    if SIX_TO_FOUR.contains(&address) {
        let special = within(second, third).unwrap_or(Special { kind: RESERVED, bits: 0 });
        return Some(Special { bits: SIX_TO_FOUR.prefix_len() + special.bits, ..special });
    }
    if let Some((block, kind)) = V6.iter().find(|(block, _)| block.contains(&address)) {
        return Some(Special { kind, bits: block.prefix_len() });
    }
    // What is not given out may yet become anything: by single networks only.
    (!V6_PUBLIC.contains(&address)).then_some(Special { kind: RESERVED, bits: 16 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(address: &str) -> Option<(&'static str, u8)> {
        special(address.parse().unwrap()).map(|special| (special.kind, special.bits))
    }

    #[test]
    fn public_addresses_are_not_special() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "192.0.1.0",
            "168.63.129.17",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "2001:200::1",
            "3ffe::1",
        ] {
            assert_eq!(kind(address), None, "{address}");
        }
    }

    #[test]
    fn blocks_are_special_from_their_first_to_their_last_address() {
        for (first, last, expected) in [
            ("0.0.0.0", "0.255.255.255", UNSPECIFIED),
            ("10.0.0.0", "10.255.255.255", PRIVATE),
            ("100.64.0.0", "100.127.255.255", PRIVATE),
            ("127.0.0.0", "127.255.255.255", LOOPBACK),
            ("169.254.0.0", "169.254.255.255", LINK_LOCAL),
            ("172.16.0.0", "172.31.255.255", PRIVATE),
            ("192.0.0.0", "192.0.0.255", RESERVED),
            ("192.0.2.0", "192.0.2.255", RESERVED),
            ("192.168.0.0", "192.168.255.255", PRIVATE),
            ("198.18.0.0", "198.19.255.255", RESERVED),
            ("198.51.100.0", "198.51.100.255", RESERVED),
            ("203.0.113.0", "203.0.113.255", RESERVED),
            ("224.0.0.0", "239.255.255.255", MULTICAST),
            ("240.0.0.0", "255.255.255.255", RESERVED),
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LINK_LOCAL),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", PRIVATE),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", PRIVATE),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", MULTICAST),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", RESERVED),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", RESERVED),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", RESERVED),
        ] {
            for address in [first, last] {
                assert_eq!(kind(address).map(|(kind, _)| kind), Some(expected), "{address}");
            }
        }
        for (address, expected) in [
            ("::", (UNSPECIFIED, 128)),
            ("::1", (LOOPBACK, 128)),
            ("::2", (RESERVED, 16)),
            ("::127.0.0.1", (RESERVED, 16)),
            ("100::1", (RESERVED, 16)),
            ("4000::1", (RESERVED, 16)),
        ] {
            assert_eq!(kind(address), Some(expected), "{address}");
        }
    }

    #[test]
    fn metadata_services_need_an_entry_of_their_very_address() {
        for address in ["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16"]
        {
            assert_eq!(kind(address), Some((METADATA, 32)), "{address}");
        }
        assert_eq!(kind("fd00:ec2::254"), Some((METADATA, 128)));
        assert_eq!(kind("fd20:ce::254"), Some((METADATA, 128)));
    }

    #[test]
    fn an_address_in_another_form_is_what_it_stands_for() {
        assert_eq!(kind("::ffff:127.0.0.1"), Some((LOOPBACK, 8)));
        assert_eq!(kind("::ffff:8.8.8.8"), None);
        assert_eq!(kind("64:ff9b::169.254.169.254"), Some((METADATA, 128)));
        assert_eq!(kind("64:ff9b::10.0.0.1"), Some((PRIVATE, 104)));
        assert_eq!(kind("64:ff9b::8.8.8.8"), None);
        // 6to4 of 127.0.0.1 and of 8.8.8.8.
        assert_eq!(kind("2002:7f00:1::1"), Some((LOOPBACK, 24)));
        assert_eq!(kind("2002:808:808::1"), Some((RESERVED, 16)));
    }
}
