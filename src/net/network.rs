//! Networks of IP addresses, as flags name them. An address with bits past its prefix is refused: it is more likely
//! mistyped than meant, and a wrong network would trust strangers as proxies.

use std::net::IpAddr;
use std::str::FromStr;

/// A network of IP addresses, such as `10.0.0.0/8`; a bare address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is in the network. An IPv4 address mapped to IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.base)
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str =
            "expected an address, such as 192.0.2.1, or a network, such as 192.0.2.0/24 or 2001:db8::/32";
        let (base, prefix) = text.split_once('/').map_or((text, None), |(base, prefix)| (base, Some(prefix)));
        let base = base.parse::<IpAddr>().map_err(|_| SHAPE)?.to_canonical();
        let prefix = match prefix {
            None => {
                if base.is_ipv4() {
                    32
                } else {
                    128
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| SHAPE)?,
            Some(_) => return Err(SHAPE),
        };
        match masked(base, prefix) {
            Some(network) if network == base => Ok(Self { base, prefix }),
            Some(_) => Err("the address has bits past its prefix: is one of the two mistyped?"),
            None => Err(SHAPE),
        }
    }
}

/// The first `prefix` bits of an address; `None` if it is shorter.
fn masked(address: IpAddr, prefix: u32) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => {
            let host_bits = 32_u32.checked_sub(prefix)?;
            IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let host_bits = 128_u32.checked_sub(prefix)?;
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_that_share_its_prefix() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse::<IpAddr>().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("192.0.2.7", "::ffff:192.0.2.7"), "an IPv4 address on a socket of both families");
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1") && !contains("2001:db8::/33", "2001:db8:8000::1"));
        assert!(contains("::1", "::1") && contains("0.0.0.0/0", "192.0.2.1") && contains("::/0", "2001:db8::1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1") && !contains("::/0", "192.0.2.1"));
        for bad in ["", "10", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/", "10.0.0.1/8", "::1/129", "x/8"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
