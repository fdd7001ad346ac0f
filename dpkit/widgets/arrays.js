// The arrays of a figure as they were sent, and the same objects while nothing of them changes.

const ARRAYS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array,
};

// a trace, or the layout, whose arrays all came again as they were gets its old arrays: by that
// plotly knows that nothing has to be computed anew. Were one of them new, all are, or it would
// compute too little. What lies around them is always new, for plotly writes into it
function rebuilt(parts, before) {
  const kept = parts.map((part, i) => {
    const wires = [];
    revived(part, (wire) => wires.push(wire));
    const again = wires.length === before[i]?.wires.length
      && wires.every((wire, j) => same(wire, before[i].wires[j]));
    return again ? before[i] : { wires, arrays: wires.map(copied) };
  });
  const made = parts.map((part, i) => {
    let at = 0;
    return revived(part, () => kept[i].arrays[at++]);
  });
  return { made, kept };
}

function revived(value, array) {
  if (value === null || typeof value !== "object") return value;
  if (row(value)) return array(value);
  if (Array.isArray(value)) return value.map((item) => revived(item, array));
  return Object.fromEntries(Object.entries(value).map(([k, item]) => [k, revived(item, array)]));
}

// whether it is numbers or words in a row, however they were sent
function row(value) {
  if (Array.isArray(value)) return value.every((item) => Object(item) !== item);
  return ("list" in value && Object.keys(value).length === 1)
    || ("bytes" in value && "dtype" in value);
}

function copied(value) {
  return Array.isArray(value) ? [...value] : "list" in value ? [...value.list] : numbers(value);
}

function same(one, other) {
  if (one === other) return true;
  if (!one || !other || typeof one !== "object" || typeof other !== "object") return false;
  if (ArrayBuffer.isView(one)) return one.byteLength === other.byteLength && bytewise(one, other);
  const keys = Object.keys(one);
  return Array.isArray(one) === Array.isArray(other) && keys.length === Object.keys(other).length
    && keys.every((key) => key in other && same(one[key], other[key]));
}

function bytewise(...views) {
  const [one, other] = views.map((v) => new Uint8Array(v.buffer, v.byteOffset, v.byteLength));
  return one.every((byte, i) => byte === other[i]);
}

function numbers({ dtype, shape, bytes }) {
  const flat = new ARRAYS[dtype](
    bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength),
  );
  return nested(flat, shape);
}

function nested(flat, shape) {
  if (shape.length < 2) return flat;
  const [rows, ...rest] = shape;
  const size = flat.length / rows;
  return Array.from({ length: rows }, (_, row) =>
    nested(flat.subarray(row * size, (row + 1) * size), rest),
  );
}

