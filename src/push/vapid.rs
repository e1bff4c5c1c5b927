//! The server's identity: a signed token that tells a push service which server this is and whom to contact about it
//! (VAPID, RFC 8292). A browser subscribes to the key, so that nobody else can push to it.

use std::time::Duration;

use ring::error::{KeyRejected, Unspecified};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::base64url;
use crate::limits::push::VAPID_TOKEN_LIFE;

/// The header of every token (RFC 8292 2).
const HEADER: &str = r#"{"typ":"JWT","alg":"ES256"}"#;

/// The server's key, and the contact for push services.
#[derive(Debug)]
pub(crate) struct Vapid {
    key: EcdsaKeyPair,
    subject: String,
    random: SystemRandom,
}

/// Generates a key, in PKCS #8.
pub(crate) fn generate_key() -> Result<Vec<u8>, Unspecified> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    Ok(document.as_ref().to_vec())
}

impl Vapid {
    /// Takes a key in PKCS #8. `subject` is a `mailto:` or `https:` URL (RFC 8292 2.1).
    pub(crate) fn new(pkcs8: &[u8], subject: String) -> Result<Self, KeyRejected> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)?;
        Ok(Self { key, subject, random })
    }

    /// The key that browsers subscribe to, in base64url.
    pub(crate) fn public_key(&self) -> String {
        base64url::encode(self.key.public_key().as_ref())
    }

    /// The value of `Authorization` for the push service at `origin`, at `now` since the Unix epoch (RFC 8292 3).
    pub(crate) fn authorization(&self, origin: &str, now: Duration) -> Result<String, Unspecified> {
        let expires_at = (now + VAPID_TOKEN_LIFE).as_secs();
        let signed = signing_input(origin, expires_at, &self.subject);
        let signature = self.key.sign(&self.random, signed.as_bytes())?;
        Ok(format!("vapid t={signed}.{}, k={}", base64url::encode(signature.as_ref()), self.public_key()))
    }
}

fn signing_input(origin: &str, expires_at: u64, subject: &str) -> String {
    let claims = json!({ "aud": origin, "exp": expires_at, "sub": subject }).to_string();
    format!("{}.{}", base64url::encode(HEADER.as_bytes()), base64url::encode(claims.as_bytes()))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    // RFC 8292 2.4.
    const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1\
        YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9Ok\
        SSHzvoD1oA";
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    fn verify(token: &str, key: &str) -> bool {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, base64url::decode(key).unwrap());
        key.verify(signed.as_bytes(), &base64url::decode(signature).unwrap()).is_ok()
    }

    #[test]
    fn the_example_of_rfc_8292_is_signed_over_our_words_and_verifies_as_ours_do() {
        let signed = signing_input("https://push.example.net", 1_453_523_768, "mailto:push@example.com");
        assert_eq!(TOKEN.rsplit_once('.').unwrap().0, signed);
        assert!(verify(TOKEN, KEY));
    }

    #[test]
    fn a_token_is_for_one_push_service_and_less_than_a_day() {
        let key = generate_key().unwrap();
        let vapid = Vapid::new(&key, "mailto:me@chat.example".into()).unwrap();
        let header = vapid.authorization("https://push.example.net", Duration::from_secs(1_000)).unwrap();
        let (token, public) = header.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(public, vapid.public_key());
        assert!(verify(token, public));
        assert!(!verify(token, KEY), "another key's");
        let claims = base64url::decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let expires_at = 1_000 + VAPID_TOKEN_LIFE.as_secs();
        assert_eq!(
            claims,
            json!({ "aud": "https://push.example.net", "exp": expires_at, "sub": "mailto:me@chat.example" })
        );
        assert!(VAPID_TOKEN_LIFE < Duration::from_hours(24), "RFC 8292 2");
    }

    #[test]
    fn the_key_stays_the_same_from_start_to_start() {
        let key = generate_key().unwrap();
        let public = || Vapid::new(&key, String::new()).unwrap().public_key();
        assert_eq!(public(), public());
        assert!(Vapid::new(b"no key", String::new()).is_err());
    }
}
