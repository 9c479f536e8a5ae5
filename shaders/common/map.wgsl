// A value of a map (what layers give each other, and its gradients) as memory holds it, and four of
// them: reals, as common/fours.wgsl has them.
alias Map = f32;
alias Map4 = Four;

fn map4(held: Map4) -> vec4<f32> {
    return four(held);
}

fn to_map4(value: vec4<f32>) -> Map4 {
    return stored(value);
}

// Which of them are other than 0 and -0, by their bits: numbers that a device would flush to 0
// count.
fn nonzero4(held: Map4) -> vec4<bool> {
    return (bitcast<vec4<u32>>(four(held)) & vec4<u32>(0x7fffffffu)) != vec4<u32>(0u);
}
