// Squares and boxes in a picture, as fada_core/face/region.py has them. No browser needed: tests run this file alone.

/** The square that is animated around a face [left, top, right, bottom], as [left, top, side], in pixels. */
export function squareAround(face, margin, width, height) {
    const [left, top, right, bottom] = face;
    const longer = Math.max(right - left, bottom - top);
    const side = Math.min(Math.round(longer * (1 + 2 * margin)), width, height);
    const place = (middle, limit) => Math.min(Math.max(Math.round(middle - side / 2), 0), limit - side);
    return [place((left + right) / 2, width), place((top + bottom) / 2, height), side];
}

/** The numbers of a face_box, or null where it is empty or not four numbers. */
export function parseBox(text) {
    const numbers = String(text ?? "").split(/[\s,]+/).filter(Boolean).map(Number);
    return numbers.length === 4 && numbers.every(Number.isFinite) ? numbers : null;
}

export const formatBox = box => box.map(Math.round).join(" ");

/** What a pointer at (x, y) takes hold of: a corner (0 to 3, clockwise from the upper left), "inside", or null. */
export function hit(box, x, y, reach) {
    if (!box) return null;
    const [left, top, right, bottom] = box;
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    const near = corners.findIndex(([cx, cy]) => Math.hypot(cx - x, cy - y) <= reach);
    if (near >= 0) return near;
    return x > left && x < right && y > top && y < bottom ? "inside" : null;
}

/** The box after a drag from (x0, y0) to (x, y), by what was taken hold of; it stays in the picture. */
export function dragged(box, held, [x0, y0], [x, y], width, height) {
    const inX = value => Math.min(Math.max(value, 0), width), inY = value => Math.min(Math.max(value, 0), height);
    if (held === "inside") {
        const dx = Math.min(Math.max(x - x0, -box[0]), width - box[2]);
        const dy = Math.min(Math.max(y - y0, -box[1]), height - box[3]);
        return [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];
    }
    // A corner moves, the opposite one stays; a new box begins where the pointer went down.
    const [ax, ay] = held === null ? [x0, y0] : [held === 0 || held === 3 ? box[2] : box[0], held < 2 ? box[3] : box[1]];
    const [bx, by] = [inX(x), inY(y)];
    return [Math.min(inX(ax), bx), Math.min(inY(ay), by), Math.max(inX(ax), bx), Math.max(inY(ay), by)];
}
