@group(0) @binding(0) var<storage, read_write> query: array<f32>;
@group(0) @binding(1) var<storage, read_write> key: array<f32>;
@group(0) @binding(2) var<storage, read_write> value: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [batch, queries, heads, WIDTH]
@group(0) @binding(4) var<uniform> sizes: Sizes;

struct Sizes {
    planes: u32, // pictures times heads
    heads: u32,
    queries: u32,
    keys: u32,
    fold_width: u32,
    // Values from one picture, head and token to the next.
    query_picture: u32,
    query_head: u32,
    query_token: u32,
    key_picture: u32,
    key_head: u32,
    key_token: u32,
    value_picture: u32,
    value_head: u32,
    value_token: u32,
}

const WIDTH = {{ WIDTH }}; // of a head
const CAUSAL = {{ CAUSAL }};
const SCALE = {{ SCALE }};
const LOW = -3e38; // stands for minus infinity, which WGSL need not have

// One workgroup computes all WIDTH values of 64 queries of one head, an invocation 4 queries x 4 values in each of up
// to three slices of 64 values. It goes once through the keys, 32 at a time: scores, then the running maximum and sum
// of each query, then the weighted values. Nothing of the size queries x keys exists anywhere.

var<workgroup> weights: array<vec4<f32>, 512>; // [32 keys][16 x 4 queries]
// [16 of the width][16 x 4 queries + 1], then [16 x 2 keys][16 x 4 queries] maxima, then [16 keys][16 x 4 values].
var<workgroup> stage: array<vec4<f32>, 272>;
var<workgroup> key_stage: array<vec2<f32>, 272>; // [16 of the width][16 x 2 keys + 1]

fn query_at(first: u32, token: u32, at: u32) -> f32 {
    if (token < sizes.queries && at < WIDTH) {
        return query[first + token * sizes.query_token + at];
    }
    return 0.0;
}

fn key_at(first: u32, token: u32, at: u32) -> f32 {
    if (token < sizes.keys && at < WIDTH) {
        return key[first + token * sizes.key_token + at];
    }
    return 0.0;
}

fn value_at(first: u32, token: u32, at: u32) -> f32 {
    if (token < sizes.keys && at < WIDTH) {
        return value[first + token * sizes.value_token + at];
    }
    return 0.0;
}

// Scores of 4 queries with one key; LOW where the query must not see it.
fn visible(scores: vec4<f32>, first_query: u32, token: u32) -> vec4<f32> {
    let queries = vec4<u32>(first_query) + vec4<u32>(0u, 1u, 2u, 3u);
    let caused = vec4<u32>(token + sizes.queries) <= queries + vec4<u32>(sizes.keys);
    let seen = vec4<bool>(token < sizes.keys) & (vec4<bool>(!CAUSAL) | caused);
    return select(vec4<f32>(LOW), scores * SCALE, seen);
}

// Adds 32 keys' values, by their weights, to one slice of 64 values of 4 queries, a column each.
fn mix(before: mat4x4<f32>, slice: u32, first: u32, first_key: u32, local: vec3<u32>) -> mat4x4<f32> {
    var sum0 = before[0];
    var sum1 = before[1];
    var sum2 = before[2];
    var sum3 = before[3];
    let at = slice * 64u + local.x * 4u;
    for (var half = 0u; half < 32u; half += 16u) {
        let token = first_key + half + local.y;
        workgroupBarrier();
        stage[local.y * 16u + local.x] = vec4<f32>(
            value_at(first, token, at),
            value_at(first, token, at + 1u),
            value_at(first, token, at + 2u),
            value_at(first, token, at + 3u),
        );
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
            let share = weights[(half + k) * 16u + local.y];
            let values = stage[k * 16u + local.x];
            sum0 = fma(vec4<f32>(share.x), values, sum0);
            sum1 = fma(vec4<f32>(share.y), values, sum1);
            sum2 = fma(vec4<f32>(share.z), values, sum2);
            sum3 = fma(vec4<f32>(share.w), values, sum3);
        }
    }
    return mat4x4<f32>(sum0, sum1, sum2, sum3);
}

fn scaled(sums: mat4x4<f32>, by: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(sums[0] * by.x, sums[1] * by.y, sums[2] * by.z, sums[3] * by.w);
}

fn write(sums: mat4x4<f32>, slice: u32, plane: u32, first_query: u32, local: vec3<u32>) {
    let at = slice * 64u + local.x * 4u;
    write_one(sums[0], plane, first_query, at);
    write_one(sums[1], plane, first_query + 1u, at);
    write_one(sums[2], plane, first_query + 2u, at);
    write_one(sums[3], plane, first_query + 3u, at);
}

fn write_one(sums: vec4<f32>, plane: u32, token: u32, at: u32) {
    if (token < sizes.queries) {
        let row = (plane / sizes.heads * sizes.queries + token) * sizes.heads + plane % sizes.heads;
        if (at < WIDTH) {
            out[row * WIDTH + at] = sums.x;
        }
        if (at + 1u < WIDTH) {
            out[row * WIDTH + at + 1u] = sums.y;
        }
        if (at + 2u < WIDTH) {
            out[row * WIDTH + at + 2u] = sums.z;
        }
        if (at + 3u < WIDTH) {
            out[row * WIDTH + at + 3u] = sums.w;
        }
    }
}

@compute @workgroup_size(16, 16, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let plane = group.z * sizes.fold_width + group.y;
    if (plane >= sizes.planes) {
        return;
    }
    let picture = plane / sizes.heads;
    let head = plane % sizes.heads;
    let query_first = picture * sizes.query_picture + head * sizes.query_head;
    let key_first = picture * sizes.key_picture + head * sizes.key_head;
    let value_first = picture * sizes.value_picture + head * sizes.value_head;
    let tile = group.x * 64u;
    let first_query = tile + local.y * 4u;

    // A causal query sees as many more keys than its own number as there are keys more than queries.
    var end = sizes.keys;
    if (CAUSAL) {
        end = min(sizes.keys, max(tile + 64u + sizes.keys, sizes.queries) - sizes.queries);
    }

    var top = vec4<f32>(LOW);
    var sum = vec4<f32>(); // over this invocation's own keys
    var mixed0 = mat4x4<f32>();
    var mixed1 = mat4x4<f32>();
    var mixed2 = mat4x4<f32>();
    for (var first_key = 0u; first_key < end; first_key += 32u) {
        var scores0 = vec4<f32>();
        var scores1 = vec4<f32>();
        let token = first_key + local.x * 2u;
        for (var first_at = 0u; first_at < WIDTH; first_at += 16u) {
            let at = first_at + local.x;
            let own_key = first_key + local.y * 2u;
            workgroupBarrier();
            stage[local.x * 17u + local.y] = vec4<f32>(
                query_at(query_first, first_query, at),
                query_at(query_first, first_query + 1u, at),
                query_at(query_first, first_query + 2u, at),
                query_at(query_first, first_query + 3u, at),
            );
            key_stage[local.x * 17u + local.y] =
                vec2<f32>(key_at(key_first, own_key, at), key_at(key_first, own_key + 1u, at));
            workgroupBarrier();
            for (var k = 0u; k < 16u; k++) {
                let queries = stage[k * 17u + local.y];
                let keys = key_stage[k * 17u + local.x];
                scores0 = fma(queries, vec4<f32>(keys.x), scores0);
                scores1 = fma(queries, vec4<f32>(keys.y), scores1);
            }
        }
        scores0 = visible(scores0, first_query, token);
        scores1 = visible(scores1, first_query, token + 1u);

        workgroupBarrier();
        stage[local.x * 16u + local.y] = max(scores0, scores1);
        workgroupBarrier();
        var highest = top;
        for (var k = 0u; k < 16u; k++) {
            highest = max(highest, stage[k * 16u + local.y]);
        }
        let fade = exp(top - highest);
        let weights0 = select(vec4<f32>(), exp(scores0 - highest), scores0 > vec4<f32>(LOW));
        let weights1 = select(vec4<f32>(), exp(scores1 - highest), scores1 > vec4<f32>(LOW));
        top = highest;
        sum = sum * fade + (weights0 + weights1);
        weights[local.x * 32u + local.y] = weights0;
        weights[local.x * 32u + 16u + local.y] = weights1;

        mixed0 = mix(scaled(mixed0, fade), 0u, value_first, first_key, local);
        if (WIDTH > 64u) {
            mixed1 = mix(scaled(mixed1, fade), 1u, value_first, first_key, local);
        }
        if (WIDTH > 128u) {
            mixed2 = mix(scaled(mixed2, fade), 2u, value_first, first_key, local);
        }
    }

    workgroupBarrier();
    stage[local.x * 16u + local.y] = sum;
    workgroupBarrier();
    var sums = vec4<f32>();
    for (var k = 0u; k < 16u; k++) {
        sums += stage[k * 16u + local.y];
    }
    // A query that sees no key at all becomes zero.
    let share = 1.0 / max(sums, vec4<f32>(1e-30));
    write(scaled(mixed0, share), 0u, plane, first_query, local);
    if (WIDTH > 64u) {
        write(scaled(mixed1, share), 1u, plane, first_query, local);
    }
    if (WIDTH > 128u) {
        write(scaled(mixed2, share), 2u, plane, first_query, local);
    }
}
