//! base64url without padding (RFC 4648 5), in which browsers and JSON Web Tokens write bytes.

use data_encoding::BASE64URL_NOPAD;

pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// Reads it, padded or not: some libraries pad.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()
}
