//! Passwords: argon2id, a few at once, off the async threads and off the threads of the database.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

use crate::config::{HASH_LANES_MAX, HASH_MEMORY_MAX_KIB, HASH_PASSES_MAX, HASHES_AT_ONCE, HASHES_WAITING};
use crate::model::Password;

/// OWASP's current minimum for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// Blocks (1 KiB) reserved for a hash. More than 32 MiB, glibc's largest threshold for mapping an allocation by
/// itself, so that the memory goes back to the system with the hash; a smaller block would be kept for good after
/// the first. What lies past the blocks in use is never touched, and so is no memory at all.
const RESERVED_BLOCKS: usize = 33 * 1024;
const _: () = assert!(RESERVED_BLOCKS > MEMORY_KIB as usize, "the reserve holds the blocks in use");

/// Too many passwords wait to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// Hashes and verifies passwords.
#[derive(Debug)]
pub(crate) struct Hasher {
    /// Those that are hashed.
    slots: Arc<Semaphore>,
    /// Those, and those that wait for it.
    places: Semaphore,
    /// What a password for an unknown name is compared to, so that it takes as long as any other.
    dummy: String,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let salt = Salt::generate();
        let dummy = phc_string(&salt, [0; HASH_BYTES]);
        Self { slots: Arc::new(Semaphore::new(HASHES_AT_ONCE)), places: Semaphore::new(HASHES_WAITING), dummy }
    }

    /// Hashes a new password, to the PHC string that is stored.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Busy> {
        self.run(move || hash(&password)).await
    }

    /// Compares a password with a stored PHC string; without one it takes the same time and fails.
    pub(crate) async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, Busy> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.clone());
        self.run(move || known & matches(&password, &stored)).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Busy)?;
        // The slot is held by the work and not by the request: a client that hangs up does not free it early.
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        work.await.map_err(|error| {
            tracing::error!(%error, "hashing a password failed");
            Busy
        })
    }
}

/// Hashes a new password, to the PHC string that is stored. Takes a core for some hundredths of a second.
#[must_use]
pub fn hash(password: &Password) -> String {
    let salt = Salt::generate();
    phc_string(&salt, derive_ours(password, &salt))
}

fn current() -> Params {
    Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).expect("the parameters are within argon2's bounds")
}

fn derive_ours(password: &Password, salt: &Salt) -> [u8; HASH_BYTES] {
    derive(&current(), password, salt).expect("salt and output are within argon2's bounds")
}

fn derive(params: &Params, password: &Password, salt: &[u8]) -> argon2::Result<[u8; HASH_BYTES]> {
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::with_capacity(blocks.max(RESERVED_BLOCKS));
    memory.resize(blocks, Block::default());
    let mut hash = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone()).hash_password_into_with_memory(
        password.as_bytes(),
        salt,
        &mut hash,
        &mut memory[..],
    )?;
    Ok(hash)
}

fn phc_string(salt: &Salt, hash: [u8; HASH_BYTES]) -> String {
    PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&current()).expect("argon2's parameters have a PHC form"),
        salt: Some(*salt),
        hash: Some(Output::new(&hash).expect("32 bytes are an output")),
    }
    .to_string()
}

/// Whether `password` is the one of `stored`, with the parameters it was stored with. A stored string that cannot be
/// read, or that takes more than a server has, matches nothing.
fn matches(password: &Password, stored: &str) -> bool {
    let Ok(stored) = PasswordHash::new(stored) else { return false };
    let (Some(salt), Some(expected), Ok(params)) = (stored.salt, stored.hash, Params::try_from(&stored)) else {
        return false;
    };
    if !is_bearable(&params) {
        return false;
    }
    // `Output` compares in constant time.
    derive(&params, password, &salt).is_ok_and(|hash| Output::new(&hash).is_ok_and(|hash| hash == expected))
}

/// Whether a stored string asks for more than any server gives to verify a password: it lets nobody in, ever.
#[must_use]
pub fn is_excessive(stored: &str) -> bool {
    let params = PasswordHash::new(stored).ok().and_then(|stored| Params::try_from(&stored).ok());
    params.is_some_and(|params| !is_bearable(&params))
}

fn is_bearable(params: &Params) -> bool {
    params.m_cost() <= HASH_MEMORY_MAX_KIB && params.t_cost() <= HASH_PASSES_MAX && params.p_cost() <= HASH_LANES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text.into()).unwrap()
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let hasher = Hasher::new();
        let stored = hasher.hash(password("correct horse")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(hasher.verify(password("correct horse"), Some(stored.clone())).await.unwrap());
        assert!(!hasher.verify(password("correct horsf"), Some(stored)).await.unwrap());
        assert!(!hasher.verify(password("correct horse"), None).await.unwrap());
    }

    #[test]
    fn what_takes_more_than_a_server_has_matches_nothing() {
        let password = password("correct horse");
        let stored_with = |memory_kib, passes, lanes| {
            let params = Params::new(memory_kib, passes, lanes, Some(HASH_BYTES)).unwrap();
            let hash = derive(&params, &password, b"saltsalt").unwrap();
            let (salt, hash) = (Salt::new(b"saltsalt").unwrap(), Output::new(&hash).unwrap());
            format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
        };
        for (memory_kib, passes, lanes) in [(64, HASH_PASSES_MAX, HASH_LANES_MAX), (HASH_MEMORY_MAX_KIB, 1, 1)] {
            let stored = stored_with(memory_kib, passes, lanes);
            assert!(matches(&password, &stored) && !is_excessive(&stored), "{stored}");
        }
        let beyond = [(HASH_MEMORY_MAX_KIB + 1, 1, 1), (64, HASH_PASSES_MAX + 1, 1), (64, 1, HASH_LANES_MAX + 1)];
        for (memory_kib, passes, lanes) in beyond {
            let stored = stored_with(memory_kib, passes, lanes);
            assert!(!matches(&password, &stored) && is_excessive(&stored), "{stored}");
        }
    }

    #[test]
    fn a_stored_string_that_is_no_hash_of_ours_matches_nothing() {
        for stored in ["", "x", "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$AAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=1,p=1"] {
            assert!(!matches(&password("correct horse"), stored), "{stored}");
        }
    }

    #[tokio::test]
    async fn past_the_bound_the_answer_is_busy() {
        let hasher = Hasher::new();
        let places: Vec<_> = (0..HASHES_WAITING).map(|_| hasher.places.try_acquire().unwrap()).collect();
        assert_eq!(hasher.hash(password("correct horse")).await, Err(Busy));
        drop(places);
        assert!(hasher.hash(password("correct horse")).await.is_ok());
    }
}
