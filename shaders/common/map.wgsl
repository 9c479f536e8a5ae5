// A value of a map (what layers give each other, and its gradients) as memory holds it, and four of them.
alias Map = f32;
alias Map4 = vec4<f32>;

fn map4(stored: Map4) -> vec4<f32> {
    return stored;
}

fn to_map4(value: vec4<f32>) -> Map4 {
    return value;
}

// Which of them are other than 0 and -0, by their bits: numbers that a device would flush to 0 count.
fn nonzero4(stored: Map4) -> vec4<bool> {
    return (bitcast<vec4<u32>>(stored) & vec4<u32>(0x7fffffffu)) != vec4<u32>(0u);
}
