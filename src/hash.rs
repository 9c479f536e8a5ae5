//! A 64-bit hash for everything that is stored: checkpoints, model files and cache entries. It
//! detects damage and distinguishes contents. Its values never change between builds, because
//! files contain them.

/// A hash state: FNV-1a over words of 8 bytes instead of single bytes, which is faster. After each
/// multiplication the upper half is folded into the lower half, because a multiplication only
/// carries bits upwards. The hash detects damage; it does not resist forgery.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        // The offset basis of 64-bit FNV-1a.
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn word(self, word: u64) -> Self {
        // The prime of 64-bit FNV-1a, 2⁴⁰ + 2⁸ + 0xb3.
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        Self(mixed ^ (mixed >> 32))
    }

    /// Returns the state after `bytes` and their number. The number separates `("ab", "c")` from
    /// `("a", "bc")`, and a padding zero from a zero in the data.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let whole = bytes.chunks_exact(8);
        let mut rest = [0; 8];
        rest[..whole.remainder().len()].copy_from_slice(whole.remainder());
        let words = whole.map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        words.chain([u64::from_le_bytes(rest), bytes.len() as u64]).fold(self, Self::word)
    }

    /// The hash of everything added so far.
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Hash;

    #[test]
    fn value_never_changes() {
        assert_eq!(Hash::default().with(b"csae").value(), 6_332_874_453_203_629_143);
    }

    #[test]
    fn lengths_distinguish_contents() {
        let of = |parts: &[&[u8]]| {
            parts.iter().fold(Hash::default(), |hash, part| hash.with(part)).value()
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"a"]), of(&[b"a\0"]));
    }
}
