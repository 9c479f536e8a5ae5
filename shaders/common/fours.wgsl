// Four f32 as they lie in memory, and conversions to and from vec4.
alias Four = vec4<f32>;

fn four(stored: Four) -> vec4<f32> {
    return stored;
}

fn stored(value: vec4<f32>) -> Four {
    return value;
}
