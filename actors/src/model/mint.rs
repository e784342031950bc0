//! The one source of ids, nonces, handles and salts.
//!
//! Draw `k` is the keyed hash of `k` under the mint's seed, so a mint needs the system's
//! randomness once, never blocks, and gives the same row for the same seed. Nothing else in
//! the engine draws at random.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::model::ids::{ResumeKey, RunId, TaskId, WorkerId, as_text, hex_digits};

/// Separates the seeds of simulations from every other use of the hash.
const SIMULATION_CONTEXT: &str = "adjutant 2026-11-21 mint v1 simulation seed";

/// The system refused its random bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes: {0}")]
pub struct MintError(getrandom::Error);

/// Draws fresh values. Shared by reference; every draw is one atomic step and one hash.
///
/// ```
/// use adjutant_actors::model::mint::Mint;
///
/// let (a, b) = (Mint::seeded(7), Mint::seeded(7));
/// assert_eq!(a.task_id(), b.task_id());
/// assert_ne!(a.task_id(), a.task_id());
/// ```
#[derive(ZeroizeOnDrop)]
pub struct Mint {
    seed: [u8; 32],
    #[zeroize(skip)]
    drawn: AtomicU64,
}

impl Mint {
    /// A mint whose draws nobody can foretell.
    ///
    /// ```
    /// use adjutant_actors::model::mint::{Mint, MintError};
    ///
    /// let mint = Mint::from_os()?;
    /// assert_ne!(mint.run_id(), mint.run_id());
    /// assert_ne!(mint.resume_key(), mint.resume_key());
    /// assert_ne!(mint.worker_id().bits(), mint.bits128());
    /// assert!(mint.nonce().len() == 32 && mint.handle_bits().iter().all(|&bits| bits < 32));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`MintError`] when the system gives no random bytes.
    pub fn from_os() -> Result<Self, MintError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(MintError)?;
        let mint = Self::from_seed(seed);
        seed.zeroize();
        Ok(mint)
    }

    /// A mint for simulations: one number, one row of draws. Never for an engine that serves,
    /// because whoever knows the number knows every secret.
    #[must_use]
    pub fn seeded(number: u64) -> Self {
        Self::from_seed(blake3::derive_key(SIMULATION_CONTEXT, &number.to_be_bytes()))
    }

    fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, drawn: AtomicU64::new(0) }
    }

    /// A fresh task id.
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        TaskId::from_bits(self.bits128())
    }

    /// A fresh worker id.
    #[must_use]
    pub fn worker_id(&self) -> WorkerId {
        WorkerId::from_bits(self.bits128())
    }

    /// A fresh key for one question to a senior.
    #[must_use]
    pub fn resume_key(&self) -> ResumeKey {
        ResumeKey::from_bits(self.bits128())
    }

    /// A fresh run id.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        RunId::from_bits(self.bits128())
    }

    /// A fresh token nonce: 32 lower-case hex digits.
    #[must_use]
    pub fn nonce(&self) -> String {
        as_text(&hex_digits(self.bits128())).to_owned()
    }

    /// 128 fresh bits.
    #[must_use]
    pub fn bits128(&self) -> u128 {
        let draw = self.draw();
        u128::from_be_bytes(*draw.first_chunk().expect("a draw has 32 bytes"))
    }

    /// 130 fresh bits as 26 numbers below 32: the random part of a worker handle.
    #[must_use]
    pub fn handle_bits(&self) -> [u8; 26] {
        let draw = self.draw();
        let symbols = draw.first_chunk::<26>().expect("a draw has 32 bytes");
        symbols.map(|byte| byte & 31)
    }

    fn draw(&self) -> [u8; 32] {
        // Only uniqueness of the number matters, so no order with other memory is asked for.
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        blake3::keyed_hash(&self.seed, &number.to_be_bytes()).into()
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_seed_gives_one_row_and_another_seed_another() {
        let row = |number| {
            let mint = Mint::seeded(number);
            (mint.task_id(), mint.nonce(), mint.handle_bits(), mint.resume_key(), mint.worker_id())
        };
        assert_eq!(row(1), row(1));
        assert_ne!(row(1), row(2));
    }

    #[test]
    fn threads_that_share_a_mint_never_draw_the_same() {
        let mint = Mint::from_os().unwrap();
        let draw = || (0..1_000).map(|_| mint.bits128()).collect::<Vec<_>>();
        let drawn = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(draw));
            threads.map(|thread| thread.join().unwrap()).concat()
        });
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 4_000);
    }

    #[test]
    fn a_nonce_has_32_digits_even_when_its_number_is_small() {
        let mint = Mint::seeded(3);
        assert!((0..600).all(|_| mint.nonce().len() == 32), "leading zeros are digits too");
    }

    #[test]
    fn debug_shows_neither_the_seed_nor_the_count() {
        assert_eq!(format!("{:?}", Mint::seeded(9)), "Mint { .. }");
    }
}
