@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // [groups, chunks, (mean, sum of squared deviations)]
@group(0) @binding(2) var<uniform> sizes: Sizes;

struct Sizes {
    groups: u32, // of all pictures
    size: u32, // of one group
    chunks: u32, // of one group
    fold_width: u32,
}

const CHUNK = 16384u;

// One workgroup computes the mean and the sum of squared deviations of up to 16384 neighbouring values of one group.
// The values are read twice, so that no difference of large squares is taken.

var<workgroup> partials: array<f32, 256>;

fn total(own: f32, lane: u32) -> f32 {
    partials[lane] = own;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (lane < half) {
            partials[lane] += partials[lane + half];
        }
        workgroupBarrier();
    }
    let sum = partials[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(256, 1, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let index = group.z * sizes.fold_width + group.y;
    if (index >= sizes.groups) {
        return;
    }
    let lane = local.x;
    let first = index * sizes.size + group.x * CHUNK;
    let count = min(CHUNK, sizes.size - group.x * CHUNK);

    var sum = 0.0;
    for (var i = lane; i < count; i += 256u) {
        sum += x[first + i];
    }
    let mean = total(sum, lane) / f32(count);

    var squares = 0.0;
    for (var i = lane; i < count; i += 256u) {
        let deviation = x[first + i] - mean;
        squares += deviation * deviation;
    }
    let spread = total(squares, lane);
    if (lane == 0u) {
        out[(index * sizes.chunks + group.x) * 2u] = mean;
        out[(index * sizes.chunks + group.x) * 2u + 1u] = spread;
    }
}
