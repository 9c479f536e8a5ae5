// common/fours.wgsl with two 64-bit words in place of four floats. Software adapters load and store
// lane by lane and word by word, so this halves the number of accesses.
alias Four = vec2<u64>;

fn four(stored: Four) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(
        u32(stored.x),
        u32(stored.x >> 32u),
        u32(stored.y),
        u32(stored.y >> 32u),
    ));
}

fn stored(value: vec4<f32>) -> Four {
    let bits = bitcast<vec4<u32>>(value);
    return vec2<u64>(u64(bits.x) | (u64(bits.y) << 32u), u64(bits.z) | (u64(bits.w) << 32u));
}
