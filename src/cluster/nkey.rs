//! nkeys: how a client authenticates to a NATS server without sending a password.
//!
//! A seed is 32 random bytes, written in base32 between a prefix for the kind of its owner and a checksum. It makes an
//! Ed25519 key; the client sends its signature of the server's nonce together with the public key, which is written in
//! the same way.

use std::fmt;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// The prefixes of a seed, and of the public key of a user.
const SEED_PREFIX: u8 = 18 << 3;
const USER_PREFIX: u8 = 20 << 3;

/// A user's key.
pub(crate) struct NKey {
    pair: Ed25519KeyPair,
    public: String,
}

impl NKey {
    /// Reads the text of a seed; `None` if it is not one of a user.
    pub(crate) fn parse(seed: &str) -> Option<Self> {
        let bytes = BASE32_NOPAD.decode(seed.trim().as_bytes()).ok()?;
        let (body, checksum) = bytes.split_at_checked(34)?;
        // The prefix of a user is spread over two bytes, after that of a seed.
        let is_user_seed = body[0] == SEED_PREFIX | (USER_PREFIX >> 5) && body[1] == USER_PREFIX << 3;
        if checksum != crc16(body).to_le_bytes() || !is_user_seed {
            return None;
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(&body[2..]).ok()?;
        let mut public = [&[USER_PREFIX], pair.public_key().as_ref()].concat();
        public.extend_from_slice(&crc16(&public).to_le_bytes());
        Some(Self { public: BASE32_NOPAD.encode(&public), pair })
    }

    /// The public key, as in the server's configuration.
    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// The signature of a server's nonce, in base64url.
    pub(crate) fn sign(&self, nonce: &[u8]) -> String {
        BASE64URL_NOPAD.encode(self.pair.sign(nonce).as_ref())
    }
}

impl fmt::Debug for NKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NKey({})", self.public)
    }
}

/// CRC-16 with the polynomial of CCITT, from 0, as XMODEM has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with another implementation of Ed25519 and of base32; it opens nothing.
    const SEED: &str = "SUAJKRG2FOKFRBFCDZDEYHWOKAPT7UUKWJSFZS7DMVI33MQVB6OEQ6PA2Q";
    const PUBLIC: &str = "UDXPMKXMV4SBH7F4DBSC64BGOZHEWJUCQPBDRIOCTZRP2HHWFKEOQVO6";
    const SIGNATURE: &str = "MXcJq-a0NuFdX9mzoZD40FkQh_WMJdEucp2kPl5Mh6q69z2Gxlrv49A7fiXrg4J7UYzdmG49JNH7_EiqDhcqBQ";

    #[test]
    fn a_seed_gives_its_public_key_and_signs() {
        let key = NKey::parse(&format!("{SEED}\n")).unwrap();
        assert_eq!(key.public(), PUBLIC);
        assert_eq!(key.sign(b"nonce"), SIGNATURE);
        assert!(!format!("{key:?}").contains(SEED));
    }

    #[test]
    fn what_is_no_seed_of_a_user_is_refused() {
        let mistyped = SEED.replace("RG2F", "RG3F");
        for bad in ["", "SU", PUBLIC, &mistyped, &SEED.to_lowercase(), &SEED[1..]] {
            assert!(NKey::parse(bad).is_none(), "{bad}");
        }
    }
}
