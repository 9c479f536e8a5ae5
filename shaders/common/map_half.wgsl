// Values of maps as common/map.wgsl has them, in half precision: computed with as f32, rounded to
// the nearest f16 when stored.
alias Map = f16;
alias Map4 = vec4<f16>;

fn map4(held: Map4) -> vec4<f32> {
    return vec4<f32>(held);
}

fn to_map4(value: vec4<f32>) -> Map4 {
    return vec4<f16>(value);
}

// Every f16 but 0 and -0 is an f32 that no device flushes.
fn nonzero4(held: Map4) -> vec4<bool> {
    return vec4<f32>(held) != vec4<f32>(0.0);
}
