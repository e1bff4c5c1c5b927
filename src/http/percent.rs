//! Percent-encoding, in paths and queries.

use std::borrow::Cow;

/// Decodes a segment of a path, or a value of a query (RFC 3986 2.1); `None` if an escape is broken or the result is
/// not UTF-8.
pub(crate) fn percent_decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(segment.into());
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        decoded.push(if byte == b'%' { digit()? * 16 + digit()? } else { byte });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_is_utf8_and_a_plus_stays() {
        assert_eq!(percent_decode("%C3%A4+%25").as_deref(), Some("ä+%"));
        assert_eq!(percent_decode("%FF"), None);
    }
}
