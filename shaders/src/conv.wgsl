@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> sizes: Sizes;

struct Sizes {
    inputs: u32,
    outputs: u32,
    rows: u32,
    columns: u32,
    out_columns: u32,
    cells: u32, // of the result
    fold_width: u32,
    fold_rows: u32,
}

const KERNEL = {{ KERNEL }};
const STRIDE = {{ STRIDE }};
const BEFORE = {{ BEFORE }};
const WINDOW = KERNEL * KERNEL;

// One workgroup computes 64 output channels of 64 output cells of one picture, an invocation 4 x 4 of these: the
// weights [outputs, depth] times the patches [depth, cells], which exist only in workgroup memory, 16 of the depth at a
// time. Each such slice is summed in order, then added to the sum: long sums lose less this way.

var<workgroup> weight_slice: array<vec4<f32>, 272>; // [16 of the depth][16 x 4 channels + 1 against conflicts]
var<workgroup> patch_slice: array<vec4<f32>, 256>; // [16 of the depth][16 x 4 cells]

fn weight_at(channel: u32, depth: u32) -> f32 {
    let depths = sizes.inputs * WINDOW;
    if (channel < sizes.outputs && depth < depths) {
        return weight[channel * depths + depth];
    }
    return 0.0;
}

// A value of a plane, or zero outside of it.
fn x_at(plane: u32, row: i32, column: i32, wanted: bool) -> f32 {
    if (wanted && row >= 0 && row < i32(sizes.rows) && column >= 0 && column < i32(sizes.columns)) {
        return x[(plane * sizes.rows + u32(row)) * sizes.columns + u32(column)];
    }
    return 0.0;
}

fn write(channel: u32, cell: u32, picture: u32, sums: vec4<f32>) {
    if (channel < sizes.outputs) {
        let at = (picture * sizes.outputs + channel) * sizes.cells + cell;
        let values = sums + vec4<f32>(bias[channel]);
        if (cell < sizes.cells) {
            out[at] = values.x;
        }
        if (cell + 1u < sizes.cells) {
            out[at + 1u] = values.y;
        }
        if (cell + 2u < sizes.cells) {
            out[at + 2u] = values.z;
        }
        if (cell + 3u < sizes.cells) {
            out[at + 3u] = values.w;
        }
    }
}

@compute @workgroup_size(16, 16, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let picture = group.z / sizes.fold_rows;
    let cell = ((group.z % sizes.fold_rows) * sizes.fold_width + group.x) * 64u + local.x * 4u;
    let channel = group.y * 64u + local.y * 4u;

    // Where the window of each of this invocation's 4 cells begins.
    let cells = vec4<u32>(cell) + vec4<u32>(0u, 1u, 2u, 3u);
    let tops = vec4<i32>(cells / sizes.out_columns * STRIDE) - vec4<i32>(i32(BEFORE));
    let lefts = vec4<i32>(cells % sizes.out_columns * STRIDE) - vec4<i32>(i32(BEFORE));
    let wanted = cells < vec4<u32>(sizes.cells);

    var sum0 = vec4<f32>();
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
    for (var first_depth = 0u; first_depth < sizes.inputs * WINDOW; first_depth += 16u) {
        let across = first_depth + local.x;
        weight_slice[local.x * 17u + local.y] = vec4<f32>(
            weight_at(channel, across),
            weight_at(channel + 1u, across),
            weight_at(channel + 2u, across),
            weight_at(channel + 3u, across),
        );
        let depth = first_depth + local.y;
        let input = depth / WINDOW;
        let plane = picture * sizes.inputs + input;
        let rows = tops + vec4<i32>(i32(depth % WINDOW / KERNEL));
        let columns = lefts + vec4<i32>(i32(depth % KERNEL));
        let needed = wanted & vec4<bool>(input < sizes.inputs);
        patch_slice[local.y * 16u + local.x] = vec4<f32>(
            x_at(plane, rows.x, columns.x, needed.x),
            x_at(plane, rows.y, columns.y, needed.y),
            x_at(plane, rows.z, columns.z, needed.z),
            x_at(plane, rows.w, columns.w, needed.w),
        );
        workgroupBarrier();
        var part0 = vec4<f32>();
        var part1 = vec4<f32>();
        var part2 = vec4<f32>();
        var part3 = vec4<f32>();
        for (var k = 0u; k < 16u; k++) {
            let factors = weight_slice[k * 17u + local.y];
            let values = patch_slice[k * 16u + local.x];
            part0 = fma(vec4<f32>(factors.x), values, part0);
            part1 = fma(vec4<f32>(factors.y), values, part1);
            part2 = fma(vec4<f32>(factors.z), values, part2);
            part3 = fma(vec4<f32>(factors.w), values, part3);
        }
        sum0 += part0;
        sum1 += part1;
        sum2 += part2;
        sum3 += part3;
        workgroupBarrier();
    }

    write(channel, cell, picture, sum0);
    write(channel + 1u, cell, picture, sum1);
    write(channel + 2u, cell, picture, sum2);
    write(channel + 3u, cell, picture, sum3);
}
