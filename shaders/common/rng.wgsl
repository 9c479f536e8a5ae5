// Counter-based random numbers: pcg4d (Jarzynski & Olano, "Hash Functions for GPU Rendering", JCGT
// 9(3), 2020). Twin: src/rng.rs.
fn pcg4d(seed: vec4<u32>) -> vec4<u32> {
    var v = seed * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// Four random words of the counter (index, step, stream, seed).
fn random_words(index: u32, step: u32, stream: u32, seed_lo: u32, seed_hi: u32) -> vec4<u32> {
    return pcg4d(vec4<u32>(index, step, stream ^ (seed_hi * 0x9e3779b9u), seed_lo));
}

// One random word of the counter (index, step, stream, seed).
fn random_word(index: u32, step: u32, stream: u32, seed_lo: u32, seed_hi: u32) -> u32 {
    return random_words(index, step, stream, seed_lo, seed_hi).x;
}

// A random integer from 0 to bound - 1, bound <= 65536, from the upper half of a word.
fn random_below(word: u32, bound: u32) -> u32 {
    return ((word >> 16u) * bound) >> 16u;
}
