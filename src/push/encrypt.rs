//! The content of a push, encrypted for one browser: the push service that delivers it cannot read it.
//!
//! RFC 8291 on top of RFC 8188: a key for each push, agreed with the browser's, so that nothing kept here can decrypt
//! what was sent. The text is always padded to one length, which hides its own.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{self, ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::hmac;
use ring::rand::SecureRandom;

use super::base64url;
use crate::limits::push::PUSH_TEXT_BYTES;

/// Bytes of an uncompressed point of P-256.
const POINT_BYTES: usize = 65;
/// Bytes of the secret that a browser gives with its key (RFC 8291 3.2).
const AUTH_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Bytes of a topic: 22 of the 32 characters that it may have.
const TOPIC_BYTES: usize = 16;
/// Bytes of a record that the header announces (RFC 8188 2.1). There is only one record, which may be shorter.
const RECORD_BYTES: u32 = 4096;
/// Ends the text of the last record; zeros follow as padding (RFC 8188 2).
const LAST_RECORD: u8 = 2;
const _: () = assert!(PUSH_TEXT_BYTES + 1 + TAG_BYTES < RECORD_BYTES as usize, "a push is one record");

/// The public key is not a point of the curve, or the system's generator does not work.
#[derive(Debug, thiserror::Error)]
#[error("cannot encrypt for this browser's key")]
pub(crate) struct EncryptError;

/// A browser's keys, as its subscription gives them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    public: [u8; POINT_BYTES],
    auth: [u8; AUTH_BYTES],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Reads `p256dh` and `auth`; `None` unless both have the right length and the point is on the curve.
    pub(crate) fn parse(p256dh: &str, auth: &str) -> Option<Self> {
        let public: [u8; POINT_BYTES] = base64url::decode(p256dh)?.try_into().ok()?;
        let auth = base64url::decode(auth)?.try_into().ok()?;
        let keys = Self { public, auth };
        // Only an agreement checks the point; its result is not needed here.
        keys.encrypt(b"").ok()?;
        Some(keys)
    }

    /// As they are stored: one after the other.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [&self.public[..], &self.auth[..]].concat()
    }

    /// Reads what [`Keys::to_bytes`] made.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (public, auth) = bytes.split_at_checked(POINT_BYTES)?;
        Some(Self { public: public.try_into().ok()?, auth: auth.try_into().ok()? })
    }

    /// The name under which a push service replaces one push of a room by the next (RFC 8030 5.4). Made with a secret
    /// that the push service does not have, so that it does not learn which devices belong to the same room.
    pub(crate) fn topic(&self, room: i64) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.auth), &room.to_be_bytes());
        base64url::encode(&tag.as_ref()[..TOPIC_BYTES])
    }

    /// Encrypts `text` of at most [`PUSH_TEXT_BYTES`] as the body of a push.
    pub(crate) fn encrypt(&self, text: &[u8]) -> Result<Vec<u8>, EncryptError> {
        let random = ring::rand::SystemRandom::new();
        let key = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(|_| EncryptError)?;
        let mut salt = [0; SALT_BYTES];
        random.fill(&mut salt).map_err(|_| EncryptError)?;
        self.encrypt_with(key, &salt, text, PUSH_TEXT_BYTES)
    }

    fn encrypt_with(
        &self,
        key: EphemeralPrivateKey,
        salt: &[u8; SALT_BYTES],
        text: &[u8],
        padded_bytes: usize,
    ) -> Result<Vec<u8>, EncryptError> {
        if text.len() > padded_bytes {
            return Err(EncryptError);
        }
        let own_public = key.compute_public_key().map_err(|_| EncryptError)?;
        let input = agreement::agree_ephemeral(key, &UnparsedPublicKey::new(&ECDH_P256, &self.public), |shared| {
            // RFC 8291 3.3 and 3.4.
            let info = [b"WebPush: info\0", &self.public[..], own_public.as_ref()];
            let mut input = [0; 32];
            expand(&Salt::new(HKDF_SHA256, &self.auth).extract(shared), &info, &mut input).map(|()| input)
        });
        let prk = Salt::new(HKDF_SHA256, salt).extract(&input.map_err(|_| EncryptError)??);
        let (mut content_key, mut nonce) = ([0; KEY_BYTES], [0; NONCE_BYTES]);
        expand(&prk, &[b"Content-Encoding: aes128gcm\0"], &mut content_key)?;
        expand(&prk, &[b"Content-Encoding: nonce\0"], &mut nonce)?;

        let mut record = text.to_vec();
        record.push(LAST_RECORD);
        record.resize(padded_bytes + 1, 0);
        let content_key = UnboundKey::new(&AES_128_GCM, &content_key).map_err(|_| EncryptError)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = LessSafeKey::new(content_key).seal_in_place_append_tag(nonce, Aad::empty(), &mut record);
        sealed.map_err(|_| EncryptError)?;
        // The header of RFC 8188 2.1, with this push's public key as the key's name (RFC 8291 4).
        let point_bytes = [u8::try_from(POINT_BYTES).map_err(|_| EncryptError)?];
        Ok([&salt[..], &RECORD_BYTES.to_be_bytes(), &point_bytes, own_public.as_ref(), &record].concat())
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF's second step (RFC 5869 2.3).
fn expand(prk: &Prk, info: &[&[u8]], out: &mut [u8]) -> Result<(), EncryptError> {
    prk.expand(info, Length(out.len())).and_then(|okm| okm.fill(out)).map_err(|_| EncryptError)
}

#[cfg(test)]
mod tests {
    use super::super::push_service::Browser;
    use super::*;

    // RFC 8291 appendix A.
    const TEXT: &str = "When I grow up, I want to be a watermelon";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const BROWSER_PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const SERVER_PRIVATE: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    const SALT: &str = "DGv6ra1nlYgDCS1FRnbzlw";
    const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6P\
        Bru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn keys() -> Keys {
        Keys::parse(BROWSER_PUBLIC, AUTH).unwrap()
    }

    #[test]
    #[expect(deprecated, reason = "ring gives no other way to a key that is known beforehand")]
    fn the_example_of_rfc_8291_comes_out_byte_for_byte() {
        let bytes = base64url::decode(SERVER_PRIVATE).unwrap();
        let random = ring::test::rand::FixedSliceRandom { bytes: &bytes };
        let key = EphemeralPrivateKey::generate(&ECDH_P256, &random).unwrap();
        let salt = base64url::decode(SALT).unwrap().try_into().unwrap();
        let body = keys().encrypt_with(key, &salt, TEXT.as_bytes(), TEXT.len()).unwrap();
        assert_eq!(base64url::encode(&body), BODY);
        assert_eq!(Browser::of_rfc_8291().decrypt(&body), TEXT);
    }

    #[test]
    fn every_push_has_one_length_and_decrypts_to_its_text() {
        for text in ["", TEXT, &"x".repeat(PUSH_TEXT_BYTES)] {
            let body = keys().encrypt(text.as_bytes()).unwrap();
            assert_eq!(body.len(), 86 + PUSH_TEXT_BYTES + 1 + TAG_BYTES);
            assert_eq!(Browser::of_rfc_8291().decrypt(&body), text);
        }
        assert!(keys().encrypt(&[b'x'; PUSH_TEXT_BYTES + 1]).is_err());
    }

    #[test]
    fn two_pushes_of_one_text_have_neither_salt_nor_key_in_common() {
        let (one, other) = (keys().encrypt(b"x").unwrap(), keys().encrypt(b"x").unwrap());
        assert_ne!(one[..SALT_BYTES], other[..SALT_BYTES]);
        assert_ne!(one[21..86], other[21..86]);
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let off_the_curve = base64url::encode(&[4; POINT_BYTES]);
        let zero = base64url::encode(&[0; POINT_BYTES]);
        for (p256dh, auth) in [
            (BROWSER_PUBLIC, ""),
            (BROWSER_PUBLIC, "BTBZMqHH6r4Tts7J_aSI"),
            ("", AUTH),
            (&BROWSER_PUBLIC[4..], AUTH),
            (&off_the_curve, AUTH),
            (&zero, AUTH),
            ("not base64url!", AUTH),
        ] {
            assert!(Keys::parse(p256dh, auth).is_none(), "{p256dh} {auth}");
        }
    }

    #[test]
    fn keys_are_read_back_as_they_were_stored() {
        assert_eq!(Keys::from_bytes(&keys().to_bytes()), Some(keys()));
        assert_eq!(Keys::from_bytes(b"short"), None);
    }

    #[test]
    fn a_topic_tells_neither_the_room_nor_that_two_devices_have_it() {
        let topic = keys().topic(7);
        assert_eq!(topic, keys().topic(7), "so that one push replaces another");
        assert_ne!(topic, keys().topic(8));
        let other = Keys::parse(BROWSER_PUBLIC, "AAAAAAAAAAAAAAAAAAAAAA").unwrap();
        assert_ne!(topic, other.topic(7));
        assert!(topic.len() <= 32, "RFC 8030 5.4");
    }
}
