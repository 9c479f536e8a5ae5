//!include grid fours map log
// Of each cell i with weight w[i]: y (cells, 5 + classes) holds the logit of "something is here",
// dx, dy, ln width, ln height of its box, and logits of classes; targets hold a class, or a number
// that is none where nothing is here, and (dx, dy, width, height), all in cells from the cell's
// middle.
//   objectness, with q = sigmoid of the logit: here -positive (1 - q)^gamma ln q, else -negative
//   q^gamma ln(1 - q) here also: box (1 - IoU + distance of the middles squared / diagonal of what
//   encloses both squared), and class -ln softmax[label] dy is the gradient of w[i] times their
//   sum. Logarithms of sizes are cut off at +-8, where their gradient is 0.
// One invocation: cells i, i + stride, ...; its workgroup's sum goes to partials[workgroup], and
// sum_scalar adds those.
// Grid: at most 256 workgroups of 256. Twin: GridDetection in src/reference/detection.rs.
struct Params {
    cells: u32,
    classes: u32,
    stride: u32,
    gamma: f32,
    positive: f32,
    negative: f32,
    box_strength: f32,
    class_strength: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> boxes: array<f32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> dy: array<Map>;
@group(0) @binding(6) var<storage, read_write> partials: array<f32>;

var<workgroup> sums: array<f32, 256>;

// ln(1 + exp(x))
fn softplus(x: f32) -> f32 {
    let small = exp(max(-abs(x), -87.0));
    return max(x, 0.0) + log_ratio(1.0 + small, 1.0, small);
}

// (loss, gradient by the logit) of objectness.
fn objectness(logit: f32, here: bool) -> vec2<f32> {
    // of the right answer: x its logit, q its probability, r the other's
    let x = select(-logit, logit, here);
    let small = exp(max(-abs(x), -87.0));
    let q = select(small, 1.0, x >= 0.0) / (1.0 + small);
    let r = select(1.0, small, x >= 0.0) / (1.0 + small);
    let minus_ln = softplus(-x);
    var focus = 1.0;
    if p.gamma > 0.0 {
        focus = pow(r, p.gamma);
    }
    let factor = select(p.negative, p.positive, here);
    let slope = -factor * focus * (p.gamma * q * minus_ln + r);
    return vec2<f32>(factor * focus * minus_ln, select(-slope, slope, here));
}

// Along one side: (overlap, its slopes by the lower and the upper end, what encloses both, its
// slopes likewise) of [a, b] and the target [s, t].
struct Side {
    both: f32,
    both_a: f32,
    both_b: f32,
    around: f32,
    around_a: f32,
    around_b: f32,
}

fn side(a: f32, b: f32, s: f32, t: f32) -> Side {
    return Side(
        min(b, t) - max(a, s),
        select(0.0, -1.0, a > s),
        select(0.0, 1.0, b < t),
        max(b, t) - min(a, s),
        select(0.0, -1.0, a < s),
        select(0.0, 1.0, b > t),
    );
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let channels = 5u + p.classes;
    var sum = 0.0;
    for (var i = flat_invocation(group, groups, local, 256u); i < p.cells; i += p.stride) {
        let base = i * channels;
        let weight = weights[i];
        let label = labels[i];
        let here = label < p.classes;
        let object = objectness(f32(y[base]), here);
        dy[base] = Map(weight * object.y);
        sum += weight * object.x;
        if !here || weight == 0.0 {
            for (var j = 1u; j < channels; j++) {
                dy[base + j] = Map(0.0);
            }
            continue;
        }

        let middle = vec2<f32>(f32(y[base + 1u]), f32(y[base + 2u]));
        let raw = vec2<f32>(f32(y[base + 3u]), f32(y[base + 4u]));
        let size = exp(clamp(raw, vec2<f32>(-8.0), vec2<f32>(8.0)));
        let goal = vec2<f32>(boxes[4u * i], boxes[4u * i + 1u]);
        let goal_size = vec2<f32>(boxes[4u * i + 2u], boxes[4u * i + 3u]);
        let low = middle - 0.5 * size;
        let high = middle + 0.5 * size;
        let goal_low = goal - 0.5 * goal_size;
        let goal_high = goal + 0.5 * goal_size;
        let across = side(low.x, high.x, goal_low.x, goal_high.x);
        let down = side(low.y, high.y, goal_low.y, goal_high.y);
        let meet = across.both > 0.0 && down.both > 0.0;
        let common_ = select(0.0, across.both * down.both, meet);
        let all = size.x * size.y + goal_size.x * goal_size.y - common_;
        let diagonal = across.around * across.around + down.around * down.around;
        let apart = middle - goal;
        let distance_ = dot(apart, apart);
        // by the overlap, the area, and the diagonal squared
        let by_common = select(0.0, -(all + common_) / (all * all), meet);
        let by_area = common_ / (all * all);
        let by_diagonal = -distance_ / (diagonal * diagonal);
        let low_x = by_common * down.both * across.both_a + by_diagonal * 2.0 * across.around * across.around_a;
        let high_x = by_common * down.both * across.both_b + by_diagonal * 2.0 * across.around * across.around_b;
        let low_y = by_common * across.both * down.both_a + by_diagonal * 2.0 * down.around * down.around_a;
        let high_y = by_common * across.both * down.both_b + by_diagonal * 2.0 * down.around * down.around_b;
        let scale = weight * p.box_strength;
        dy[base + 1u] = Map(scale * (low_x + high_x + 2.0 * apart.x / diagonal));
        dy[base + 2u] = Map(scale * (low_y + high_y + 2.0 * apart.y / diagonal));
        let width = size.x * (0.5 * (high_x - low_x) + by_area * size.y);
        let height = size.y * (0.5 * (high_y - low_y) + by_area * size.x);
        dy[base + 3u] = Map(scale * select(0.0, width, abs(raw.x) < 8.0));
        dy[base + 4u] = Map(scale * select(0.0, height, abs(raw.y) < 8.0));
        sum += scale * (1.0 - common_ / all + distance_ / diagonal);

        var highest = f32(y[base + 5u]);
        for (var j = 1u; j < p.classes; j++) {
            highest = max(highest, f32(y[base + 5u + j]));
        }
        var total = 0.0;
        for (var j = 0u; j < p.classes; j++) {
            total += exp(max(f32(y[base + 5u + j]) - highest, -87.0));
        }
        for (var j = 0u; j < p.classes; j++) {
            let share = exp(max(f32(y[base + 5u + j]) - highest, -87.0)) / total;
            dy[base + 5u + j] = Map(weight * p.class_strength * (share - select(0.0, 1.0, j == label)));
        }
        sum += weight * p.class_strength * (log_accurate(total) + (highest - f32(y[base + 5u + label])));
    }
    sums[local] = sum;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        partials[flat_workgroup(group, groups)] = sums[0];
    }
}
