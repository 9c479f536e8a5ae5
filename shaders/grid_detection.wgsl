//!include grid fours map log
// Loss of an anchor-free detector on a grid of cells, and its gradient with respect to y. Cell i
//   has weight w[i]. Objects are assigned to cells; a cell has an object if its label is below
//   `classes`.
//   objectness, with q = sigmoid(logit): -positive (1 - q)^gamma ln q if the cell has an object,
//     else -negative q^gamma ln(1 - q) (focal loss)
//   box, cells with an object: 1 - IoU + d^2 / c^2, d the distance of the centres, c the diagonal
//     of the smallest box that encloses both (DIoU)
//   class, cells with an object: -ln softmax(logits)[label]
//   sum += w[i] * (objectness + box_strength * box + class_strength * class)
// Layouts: y and dy (cells, 5 + classes): objectness logit, dx, dy, ln width, ln height of the box,
//   class logits; labels and weights (cells); boxes (cells, 4): dx, dy, width, height. Boxes are in
//   units of cells, from the cell's centre. ln width and ln height are clamped to +-8, where their
//   gradient is 0.
// Invocation: cells i, i + stride, ... The workgroup's sum goes to partials[workgroup], and
//   sum_partials adds those.
// Grid: at most 256 workgroups of 256.
// Twin: GridDetection in src/ops/detection/cpu.rs.
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

// ln(1 + exp(x)). The exponent is clamped at -87, below which exp would be subnormal.
fn softplus(x: f32) -> f32 {
    let small = exp(max(-abs(x), -87.0));
    return max(x, 0.0) + log_ratio(1.0 + small, 1.0, small);
}

// (loss, derivative with respect to the logit) of objectness.
fn objectness(logit: f32, has_object: bool) -> vec2<f32> {
    // x is the logit of the right answer, q its probability, r = 1 - q without cancellation.
    let x = select(-logit, logit, has_object);
    let small = exp(max(-abs(x), -87.0));
    let q = select(small, 1.0, x >= 0.0) / (1.0 + small);
    let r = select(1.0, small, x >= 0.0) / (1.0 + small);
    let minus_ln = softplus(-x);
    var focus = 1.0;
    if p.gamma > 0.0 {
        focus = pow(r, p.gamma);
    }
    let factor = select(p.negative, p.positive, has_object);
    let slope = -factor * focus * (p.gamma * q * minus_ln + r);
    return vec2<f32>(factor * focus * minus_ln, select(-slope, slope, has_object));
}

// One axis of a predicted interval [a, b] and the target [s, t]: the length of their overlap and of
// the interval that encloses both, each with its derivatives with respect to a and b.
struct Side {
    overlap: f32,
    overlap_a: f32,
    overlap_b: f32,
    hull: f32,
    hull_a: f32,
    hull_b: f32,
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
        let has_object = label < p.classes;
        let object = objectness(f32(y[base]), has_object);
        dy[base] = Map(weight * object.y);
        sum += weight * object.x;
        if !has_object || weight == 0.0 {
            for (var j = 1u; j < channels; j++) {
                dy[base + j] = Map(0.0);
            }
            continue;
        }

        let centre = vec2<f32>(f32(y[base + 1u]), f32(y[base + 2u]));
        let log_size = vec2<f32>(f32(y[base + 3u]), f32(y[base + 4u]));
        let size = exp(clamp(log_size, vec2<f32>(-8.0), vec2<f32>(8.0)));
        let target_centre = vec2<f32>(boxes[4u * i], boxes[4u * i + 1u]);
        let target_size = vec2<f32>(boxes[4u * i + 2u], boxes[4u * i + 3u]);
        let low = centre - 0.5 * size;
        let high = centre + 0.5 * size;
        let target_low = target_centre - 0.5 * target_size;
        let target_high = target_centre + 0.5 * target_size;
        let across = side(low.x, high.x, target_low.x, target_high.x);
        let down = side(low.y, high.y, target_low.y, target_high.y);
        let intersects = across.overlap > 0.0 && down.overlap > 0.0;
        let intersection = select(0.0, across.overlap * down.overlap, intersects);
        let union_area = size.x * size.y + target_size.x * target_size.y - intersection;
        // c^2 and d^2 of the header.
        let diagonal2 = across.hull * across.hull + down.hull * down.hull;
        let offset = centre - target_centre;
        let distance2 = dot(offset, offset);
        // Derivatives of the box loss with respect to intersection, predicted area and c^2.
        let by_intersection =
            select(0.0, -(union_area + intersection) / (union_area * union_area), intersects);
        let by_area = intersection / (union_area * union_area);
        let by_diagonal2 = -distance2 / (diagonal2 * diagonal2);
        // Derivatives with respect to the edges of the predicted box.
        let low_x = by_intersection * down.overlap * across.overlap_a
            + by_diagonal2 * 2.0 * across.hull * across.hull_a;
        let high_x = by_intersection * down.overlap * across.overlap_b
            + by_diagonal2 * 2.0 * across.hull * across.hull_b;
        let low_y = by_intersection * across.overlap * down.overlap_a
            + by_diagonal2 * 2.0 * down.hull * down.hull_a;
        let high_y = by_intersection * across.overlap * down.overlap_b
            + by_diagonal2 * 2.0 * down.hull * down.hull_b;
        let scale = weight * p.box_strength;
        dy[base + 1u] = Map(scale * (low_x + high_x + 2.0 * offset.x / diagonal2));
        dy[base + 2u] = Map(scale * (low_y + high_y + 2.0 * offset.y / diagonal2));
        let width = size.x * (0.5 * (high_x - low_x) + by_area * size.y);
        let height = size.y * (0.5 * (high_y - low_y) + by_area * size.x);
        dy[base + 3u] = Map(scale * select(0.0, width, abs(log_size.x) < 8.0));
        dy[base + 4u] = Map(scale * select(0.0, height, abs(log_size.y) < 8.0));
        sum += scale * (1.0 - intersection / union_area + distance2 / diagonal2);

        var max_logit = f32(y[base + 5u]);
        for (var j = 1u; j < p.classes; j++) {
            max_logit = max(max_logit, f32(y[base + 5u + j]));
        }
        var total = 0.0;
        for (var j = 0u; j < p.classes; j++) {
            total += exp(max(f32(y[base + 5u + j]) - max_logit, -87.0));
        }
        for (var j = 0u; j < p.classes; j++) {
            let probability = exp(max(f32(y[base + 5u + j]) - max_logit, -87.0)) / total;
            let gradient = probability - select(0.0, 1.0, j == label);
            dy[base + 5u + j] = Map(weight * p.class_strength * gradient);
        }
        let loss = log_accurate(total) + (max_logit - f32(y[base + 5u + label]));
        sum += weight * p.class_strength * loss;
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
