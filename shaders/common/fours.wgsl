// Four reals as memory holds them.
alias Four = vec4<f32>;

fn four(stored: Four) -> vec4<f32> {
    return stored;
}

fn stored(value: vec4<f32>) -> Four {
    return value;
}
