// common/map.wgsl with maps in half precision: computation is in f32, stores round to the nearest
// f16.
alias Map = f16;
alias Map4 = vec4<f16>;

fn map4(held: Map4) -> vec4<f32> {
    return vec4<f32>(held);
}

fn to_map4(value: vec4<f32>) -> Map4 {
    return vec4<f16>(value);
}

// Whether each lane differs from 0 and -0. Every nonzero f16 is a normal f32, which no device
// flushes to 0.
fn nonzero4(held: Map4) -> vec4<bool> {
    return vec4<f32>(held) != vec4<f32>(0.0);
}
