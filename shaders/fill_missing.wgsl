//!include grid fours map
// y = x where known = 1, else a smooth interpolation of the known x of the same map (n, c) by
//   pull-push (Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.3.2). Pull: each level of
//   a pyramid halves the sides, rounded up, and averages the known pixels. Push: from the coarsest
//   level down, unknown pixels are interpolated bilinearly.
// Layouts: x, known, y (N,H,W,C); pyramid (N * C, cells, 2): for each map all levels but the
//   finest, as pairs of a value and 1 if it is known, else 0.
// Workgroup: one map (n, c), channels fastest.
// Grid: N * C workgroups of 64.
// Twin: FillMissing in src/ops/missing/cpu.rs.
struct Params {
    n: u32,
    c: u32,
    h: u32,
    w: u32,
    cells: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> known: array<Map>;
@group(0) @binding(3) var<storage, read_write> y: array<Map>;
@group(0) @binding(4) var<storage, read_write> pyramid: array<f32>;

fn halved(side: vec2<u32>) -> vec2<u32> {
    return (side + 1u) / 2u;
}

// The two coarse cells, along one axis, between whose centres a fine cell lies: the nearer first.
// Edge cells have only one neighbour, which is returned twice.
fn nearest_two(at: u32, side: u32) -> vec2<u32> {
    let half = at / 2u;
    return vec2<u32>(half, select(min(half + 1u, side - 1u), max(half, 1u) - 1u, at % 2u == 0u));
}

// Interpolates a level of the pyramid bilinearly at a pixel of the next finer level. The level
// begins at cell `first` and has the sides `side`. A fine centre lies a quarter cell from the
// nearer coarse centre, hence the weights 3/4 and 1/4.
fn interpolate(first: u32, side: vec2<u32>, at: vec2<u32>) -> f32 {
    let rows = nearest_two(at.x, side.x);
    let columns = nearest_two(at.y, side.y);
    let upper = first + rows.x * side.y;
    let lower = first + rows.y * side.y;
    let near_row =
        0.75 * pyramid[2u * (upper + columns.x)] + 0.25 * pyramid[2u * (upper + columns.y)];
    let far_row =
        0.75 * pyramid[2u * (lower + columns.x)] + 0.25 * pyramid[2u * (lower + columns.y)];
    return 0.75 * near_row + 0.25 * far_row;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let map = flat_workgroup(group, groups);
    if map >= p.n * p.c {
        return;
    }
    let origin = map / p.c * p.h * p.w * p.c + map % p.c;
    let base = map * p.cells;
    // Pull: build the pyramid from fine to coarse.
    var fine = vec2<u32>(p.h, p.w);
    var fine_first = 0u;
    var first = base;
    var level = 0u;
    while fine.x * fine.y > 1u {
        let side = halved(fine);
        for (var cell = local; cell < side.x * side.y; cell += 64u) {
            let at = 2u * vec2<u32>(cell / side.y, cell % side.y);
            var sum = 0.0;
            var count = 0.0;
            for (var child = 0u; child < 4u; child++) {
                let below = at + vec2<u32>(child / 2u, child % 2u);
                if any(below >= fine) {
                    continue;
                }
                let place = below.x * fine.y + below.y;
                if level == 0u {
                    let weight = f32(known[origin + place * p.c]);
                    sum += select(0.0, f32(x[origin + place * p.c]), weight == 1.0);
                    count += weight;
                } else {
                    let weight = pyramid[2u * (fine_first + place) + 1u];
                    sum += weight * pyramid[2u * (fine_first + place)];
                    count += weight;
                }
            }
            pyramid[2u * (first + cell)] = sum / max(count, 1.0);
            pyramid[2u * (first + cell) + 1u] = min(count, 1.0);
        }
        storageBarrier();
        fine = side;
        fine_first = first;
        first += side.x * side.y;
        level++;
    }
    // Push: fill level - 2 from level - 1 (counting from the first coarse level, 0).
    for (; level > 1u; level--) {
        var side = vec2<u32>(p.h, p.w);
        var coarse_first = base;
        for (var above = 0u; above < level; above++) {
            side = halved(side);
            coarse_first += select(side.x * side.y, 0u, above + 1u == level);
        }
        // `side` now holds the sides of the coarser level. The finer one lies before it in memory.
        var finer = vec2<u32>(p.h, p.w);
        for (var above = 0u; above + 1u < level; above++) {
            finer = halved(finer);
        }
        let finer_first = coarse_first - finer.x * finer.y;
        for (var cell = local; cell < finer.x * finer.y; cell += 64u) {
            let at = finer_first + cell;
            if pyramid[2u * at + 1u] == 0.0 {
                let place = vec2<u32>(cell / finer.y, cell % finer.y);
                pyramid[2u * at] = interpolate(coarse_first, side, place);
            }
        }
        storageBarrier();
    }
    let coarse = halved(vec2<u32>(p.h, p.w));
    for (var pixel = local; pixel < p.h * p.w; pixel += 64u) {
        let at = origin + pixel * p.c;
        var value = f32(x[at]);
        if f32(known[at]) == 0.0 {
            value = 0.0;
            if p.h * p.w > 1u {
                value = interpolate(base, coarse, vec2<u32>(pixel / p.w, pixel % p.w));
            }
        }
        y[at] = Map(value);
    }
}
