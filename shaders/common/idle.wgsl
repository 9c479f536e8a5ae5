// For maps (N,H,W,C) and `idle` (C), steps that each unit has not fired for, as the kernel binds
// it; the kernel's p.channels is C.
fn idle_of(element: u32) -> f32 {
    let c = element % p.channels;
    return idle[c / 4u][c % 4u];
}

// Those of the four elements of vec4 i.
fn idle4(i: u32) -> vec4<f32> {
    if p.channels % 4u == 0u {
        return idle[i % (p.channels / 4u)];
    }
    return vec4<f32>(idle_of(4u * i), idle_of(4u * i + 1u), idle_of(4u * i + 2u), idle_of(4u * i + 3u));
}
