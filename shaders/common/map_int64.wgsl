// Values of maps as common/map.wgsl has them, four of them in two words of 64 bits: a software adapter loads and stores lane by lane and word by word,
// and so half as often.
alias Map = f32;
alias Map4 = vec2<u64>;

fn map4(stored: Map4) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(stored.x), u32(stored.x >> 32u), u32(stored.y), u32(stored.y >> 32u)));
}

fn to_map4(value: vec4<f32>) -> Map4 {
    let bits = bitcast<vec4<u32>>(value);
    return vec2<u64>(u64(bits.x) | (u64(bits.y) << 32u), u64(bits.z) | (u64(bits.w) << 32u));
}

fn nonzero4(stored: Map4) -> vec4<bool> {
    return (bitcast<vec4<u32>>(map4(stored)) & vec4<u32>(0x7fffffffu)) != vec4<u32>(0u);
}
