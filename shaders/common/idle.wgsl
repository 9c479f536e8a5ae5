// Access to `idle` (C), the number of steps since each unit last fired, for maps (N,H,W,C). The
// kernel binds `idle`, and p.channels is C.
fn idle_of(element: u32) -> f32 {
    let c = element % p.channels;
    return idle[c / 4u][c % 4u];
}

// The counters of the four elements of vec4 i.
fn idle4(i: u32) -> vec4<f32> {
    if p.channels % 4u == 0u {
        return idle[i % (p.channels / 4u)];
    }
    return vec4<f32>(
        idle_of(4u * i),
        idle_of(4u * i + 1u),
        idle_of(4u * i + 2u),
        idle_of(4u * i + 3u),
    );
}
