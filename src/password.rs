//! Passwords: argon2id, a few at a time, on neither the async threads nor those of the database.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

use crate::limits::{
    HASH_LANES_MAX, HASH_MEMORY_MAX_KIB, HASH_PASSES_MAX, HASHES_AT_ONCE, HASHES_WAITING, SMALL_MEMORY_BYTES,
};
use crate::secret::Password;

/// OWASP's current minimum for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// Blocks (1 KiB) reserved for a hash. More than 32 MiB, glibc's largest threshold for mapping an allocation by itself,
/// so that the memory returns to the system with the hash; a smaller block would be kept for good after the first.
/// Blocks beyond those in use are never touched, and so take no memory.
const RESERVED_BLOCKS: usize = 33 * 1024;
const _: () = assert!(RESERVED_BLOCKS > MEMORY_KIB as usize, "the reserve must hold the blocks in use");

/// Too many passwords are waiting to be hashed, or there is not enough memory to hash one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// There is no memory to hash a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is not enough memory to hash a password")]
pub struct OutOfMemory;

/// Hashes and verifies passwords.
#[derive(Debug)]
pub(crate) struct Hasher {
    /// Permits for passwords being hashed.
    slots: Arc<Semaphore>,
    /// Permits for passwords being hashed or waiting for it.
    places: Semaphore,
    /// The hash that a password for an unknown name is compared with, so that it takes as long as any other.
    dummy: String,
}

impl Hasher {
    /// For a server with `memory` bytes.
    pub(crate) fn new(memory: u64) -> Self {
        let salt = Salt::generate();
        let dummy = phc_string(&salt, [0; HASH_BYTES]);
        let at_once = if memory < SMALL_MEMORY_BYTES { 1 } else { HASHES_AT_ONCE };
        Self { slots: Arc::new(Semaphore::new(at_once)), places: Semaphore::new(HASHES_WAITING), dummy }
    }

    /// Hashes a new password into the PHC string that is stored.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Busy> {
        self.run(move || hash(&password)).await
    }

    /// Compares a password with a stored PHC string; without one it takes the same time and fails.
    pub(crate) async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, Busy> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.clone());
        self.run(move || Ok(known & matches(&password, &stored)?)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, OutOfMemory> + Send + 'static,
    ) -> Result<T, Busy> {
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Busy)?;
        // The work holds the slot, not the request: a client that disconnects does not free it early.
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        match work.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                tracing::error!(%error, "a password was not hashed");
                Err(Busy)
            }
            Err(error) => {
                tracing::error!(%error, "hashing a password failed");
                Err(Busy)
            }
        }
    }
}

/// Hashes a new password into the PHC string that is stored. Occupies a core for some hundredths of a second.
///
/// # Errors
/// If there is not enough memory.
pub fn hash(password: &Password) -> Result<String, OutOfMemory> {
    let salt = Salt::generate();
    match derive(&current(), password, &salt) {
        Ok(hash) => Ok(phc_string(&salt, hash)),
        Err(argon2::Error::OutOfMemory) => Err(OutOfMemory),
        Err(error) => unreachable!("salt and output are within argon2's bounds: {error}"),
    }
}

fn current() -> Params {
    Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).expect("the parameters are within argon2's bounds")
}

fn derive(params: &Params, password: &Password, salt: &[u8]) -> argon2::Result<[u8; HASH_BYTES]> {
    let blocks = params.block_count();
    let mut memory: Vec<Block> = Vec::new();
    // The one large allocation of the server: if it fails, a login is refused, and the process does not end.
    memory.try_reserve_exact(blocks.max(RESERVED_BLOCKS)).map_err(|_| argon2::Error::OutOfMemory)?;
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

/// Whether `password` matches `stored`, with the parameters it was stored with. A stored string that is malformed, or
/// that demands too much, matches nothing.
fn matches(password: &Password, stored: &str) -> Result<bool, OutOfMemory> {
    let Ok(stored) = PasswordHash::new(stored) else { return Ok(false) };
    let (Some(salt), Some(expected), Ok(params)) = (stored.salt, stored.hash, Params::try_from(&stored)) else {
        return Ok(false);
    };
    if !is_bearable(&params) {
        return Ok(false);
    }
    match derive(&params, password, &salt) {
        // `Output` compares in constant time.
        Ok(hash) => Ok(Output::new(&hash).is_ok_and(|hash| hash == expected)),
        Err(argon2::Error::OutOfMemory) => Err(OutOfMemory),
        Err(_) => Ok(false),
    }
}

/// Whether verifying against a stored string demands more than any server allows: no password ever matches it.
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
    async fn a_password_matches_only_its_own_hash() {
        let hasher = Hasher::new(u64::MAX);
        let stored = hasher.hash(password("correct horse")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(hasher.verify(password("correct horse"), Some(stored.clone())).await.unwrap());
        assert!(!hasher.verify(password("correct horsf"), Some(stored)).await.unwrap());
        assert!(!hasher.verify(password("correct horse"), None).await.unwrap());
    }

    #[test]
    fn a_hash_that_demands_too_much_matches_nothing() {
        let password = password("correct horse");
        let stored_with = |memory_kib, passes, lanes| {
            let params = Params::new(memory_kib, passes, lanes, Some(HASH_BYTES)).unwrap();
            let hash = derive(&params, &password, b"saltsalt").unwrap();
            let (salt, hash) = (Salt::new(b"saltsalt").unwrap(), Output::new(&hash).unwrap());
            format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
        };
        for (memory_kib, passes, lanes) in [(64, HASH_PASSES_MAX, HASH_LANES_MAX), (HASH_MEMORY_MAX_KIB, 1, 1)] {
            let stored = stored_with(memory_kib, passes, lanes);
            assert!(matches(&password, &stored).unwrap() && !is_excessive(&stored), "{stored}");
        }
        let beyond = [(HASH_MEMORY_MAX_KIB + 1, 1, 1), (64, HASH_PASSES_MAX + 1, 1), (64, 1, HASH_LANES_MAX + 1)];
        for (memory_kib, passes, lanes) in beyond {
            let stored = stored_with(memory_kib, passes, lanes);
            assert!(!matches(&password, &stored).unwrap() && is_excessive(&stored), "{stored}");
        }
    }

    #[test]
    fn a_stored_string_that_is_malformed_matches_nothing() {
        for stored in ["", "x", "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$AAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=1,p=1"] {
            assert_eq!(matches(&password("correct horse"), stored), Ok(false), "{stored}");
        }
    }

    #[test]
    fn where_memory_is_small_one_is_hashed_at_a_time() {
        let at_once = |memory| Hasher::new(memory).slots.available_permits();
        assert_eq!(at_once(SMALL_MEMORY_BYTES - 1), 1);
        assert_eq!(at_once(SMALL_MEMORY_BYTES), HASHES_AT_ONCE);
    }

    #[tokio::test]
    async fn past_the_bound_the_answer_is_busy() {
        let hasher = Hasher::new(u64::MAX);
        let places: Vec<_> = (0..HASHES_WAITING).map(|_| hasher.places.try_acquire().unwrap()).collect();
        assert_eq!(hasher.hash(password("correct horse")).await, Err(Busy));
        drop(places);
        assert!(hasher.hash(password("correct horse")).await.is_ok());
    }
}
