// A value of a map (a layer's output, its gradient or a mask) as it lies in memory, and four of
// them. Here maps hold f32, four of them as in common/fours.wgsl.
alias Map = f32;
alias Map4 = Four;

fn map4(held: Map4) -> vec4<f32> {
    return four(held);
}

fn to_map4(value: vec4<f32>) -> Map4 {
    return stored(value);
}

// Whether each lane differs from 0 and -0. Tested by bits, because a device may flush subnormals to
// 0 in a comparison.
fn nonzero4(held: Map4) -> vec4<bool> {
    return (bitcast<vec4<u32>>(four(held)) & vec4<u32>(0x7fffffffu)) != vec4<u32>(0u);
}
