//! One hash for everything that is kept: it finds damage and tells contents apart, and is the same
//! in every build.

/// FNV-1a taken over words of 8 bytes, with a shift that carries the upper bits down: finds damage,
/// not forgery.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn word(self, word: u64) -> Self {
        let mixed = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        Self(mixed ^ (mixed >> 32))
    }

    /// With bytes and their number added.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let whole = bytes.chunks_exact(8);
        let mut rest = [0; 8];
        rest[..whole.remainder().len()].copy_from_slice(whole.remainder());
        let words = whole.map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        words.chain([u64::from_le_bytes(rest), bytes.len() as u64]).fold(self, Self::word)
    }

    /// The hash of what was added.
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Hash;

    #[test]
    fn a_hash_stays_the_same_and_tells_contents_apart() {
        assert_eq!(Hash::default().with(b"csae").value(), 6_332_874_453_203_629_143);
        let of = |parts: &[&[u8]]| {
            parts.iter().fold(Hash::default(), |hash, part| hash.with(part)).value()
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"a"]), of(&[b"a\0"]));
    }
}
