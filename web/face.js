// FADA Encode: the portrait in the node, with the found face and the square that will move. A box that is dragged on it
// becomes face_box. Before the first run the server is asked about pictures of Load Image; of others the run tells.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { dragged, formatBox, hit, parseBox, squareAround } from "./face_geometry.js";

const SMALLEST = 16; // pixels; find_face refuses smaller faces
const REACH = 9; // pixels of the screen around a corner
const LOOK = 400; // ms between two looks at what the node's inputs are now
const COLOURS = { square: "#4aa3ff", face: "#5ad17a", other: "#ffffff", assumed: "#ffb347", error: "#ff6b6b" };

class FaceView {
    constructor(node) {
        this.node = node;
        this.views = []; // as nodes/face.py describes them
        this.shown = 0;
        this.key = this.pending = null;
        this.picture = null;
        this.drag = null;
        this.build();
        this.timer = setInterval(() => this.look(), LOOK);
    }

    build() {
        this.element = document.createElement("div");
        this.element.className = "fada-face";
        this.element.style.cssText = "display:flex;flex-direction:column;gap:4px;min-height:200px;width:100%";
        this.canvas = document.createElement("canvas");
        this.canvas.style.cssText = "flex:1 1 0;min-height:0;width:100%;touch-action:none;cursor:crosshair";
        this.text = document.createElement("div");
        this.text.style.cssText = "font:12px sans-serif;line-height:1.3;padding:0 4px;color:var(--input-text, #ddd)";
        this.text.setAttribute("role", "status");
        this.element.append(this.canvas, this.text);
        this.canvas.addEventListener("pointerdown", event => this.begin(event));
        this.canvas.addEventListener("pointermove", event => this.move(event));
        this.canvas.addEventListener("pointerup", event => this.end(event));
        this.canvas.addEventListener("dblclick", () => this.setBox(""));
        this.text.addEventListener("click", () => this.next());
        this.resized = new ResizeObserver(() => this.draw());
        this.resized.observe(this.canvas);
        this.say("Connect a portrait. Here you will see the face, and the square that moves.");
    }

    remove() {
        clearInterval(this.timer);
        this.resized.disconnect();
    }

    value(name) {
        return this.node.widgets?.find(widget => widget.name === name)?.value;
    }

    get view() {
        return this.views[this.shown];
    }

    /** Name of the picture in Load Image, where that is what is connected; null: another node makes the picture. */
    source() {
        const slot = this.node.inputs?.findIndex(input => input.name === "image") ?? -1;
        let node = slot < 0 ? null : this.node.getInputNode?.(slot);
        for (let i = 0; i < 20 && node && (node.isVirtualNode || node.type === "Reroute"); i++) node = node.getInputNode?.(0);
        if (node?.comfyClass !== "LoadImage") return null;
        return node.widgets?.find(widget => widget.name === "image")?.value || null;
    }

    masked() {
        return this.node.inputs?.find(input => input.name === "mask")?.link != null;
    }

    /** Ask the server once what the face depends on has changed, and has rested for a moment. */
    look() {
        if (this.drag) return;
        const image = this.source();
        const asked = image && {
            image, margin: this.value("crop_margin"), box: this.value("face_box"), model: this.value("face_model"),
            index: this.value("face_index"),
        };
        const key = JSON.stringify([asked, this.masked()]);
        if (key === this.key) return;
        if (key !== this.pending) {
            this.pending = key;
            return;
        }
        this.key = key;
        if (asked && !this.view) this.say("Looking for the face ...");
        if (!asked) this.redrawLocally();
        else if (this.masked()) this.show([], "The mask says where the face is; it is shown after a run.");
        else this.ask(asked, key);
    }

    async ask(asked, key) {
        let answer, told;
        try {
            answer = await api.fetchApi(`/fada/face?${new URLSearchParams(asked)}`);
            told = await answer.json();
        } catch (error) {
            told = { message: String(error) };
        }
        if (key !== this.key) return; // a newer question is on its way
        if (answer?.ok) this.show([{ ...told, image: annotated(asked.image) }]);
        else this.show(this.views.slice(0, 1).map(view => ({ ...view, square: null, face: null })), told.message, true);
    }

    /** After a run. */
    executed(views) {
        this.show(views);
    }

    async show(views, message = null, wrong = false) {
        this.views = views;
        this.shown = Math.min(this.shown, Math.max(views.length - 1, 0));
        this.wrong = wrong ? message : null;
        await this.load();
        if (message) this.say(message, wrong ? COLOURS.error : undefined);
    }

    async load() {
        const image = this.view?.image;
        if (image) {
            const address = api.apiURL(`/view?${new URLSearchParams(image)}`);
            if (this.picture?.dataset.address !== address) {
                const picture = new Image();
                picture.dataset.address = address;
                picture.src = address;
                try {
                    await picture.decode();
                } catch {
                    return this.say("The picture cannot be shown.", COLOURS.error);
                }
                this.picture = picture;
            }
        }
        this.draw();
        this.tell();
    }

    next() {
        if (this.views.length < 2) return;
        this.shown = (this.shown + 1) % this.views.length;
        this.load();
    }

    /** What the view says, and how it can be changed. */
    tell() {
        if (!this.view || this.wrong) return;
        const many = this.views.length > 1 ? ` (${this.shown + 1} of ${this.views.length}: click here for the next)` : "";
        const assumed = this.view.source === "assumed";
        const how = assumed ? "" : this.value("face_box") ? " Double-click: look for it again." : " Drag a box to move it.";
        this.say(this.view.message + how + many, assumed ? COLOURS.assumed : undefined);
    }

    say(text, colour = "var(--input-text, #ddd)") {
        this.text.textContent = text;
        this.text.style.color = colour;
    }

    /** From the screen to the picture's pixels. */
    place(event) {
        const { scale, left, top } = this.fit, corner = this.canvas.getBoundingClientRect();
        const zoom = corner.width / this.canvas.clientWidth; // of the graph
        return [((event.clientX - corner.x) / zoom - left) / scale, ((event.clientY - corner.y) / zoom - top) / scale];
    }

    begin(event) {
        if (event.button !== 0 || !this.view || !this.picture || this.masked()) return;
        event.stopPropagation();
        event.preventDefault();
        this.canvas.setPointerCapture(event.pointerId);
        const from = this.place(event), box = parseBox(this.value("face_box")) ?? this.view.face;
        this.drag = { from, box, held: hit(box, ...from, REACH / this.fit.scale), to: null };
    }

    move(event) {
        if (!this.view || !this.fit) return;
        if (!this.drag) {
            const held = hit(parseBox(this.value("face_box")) ?? this.view.face, ...this.place(event), REACH / this.fit.scale);
            this.canvas.style.cursor = held === "inside" ? "move" : held === null ? "crosshair" : "nwse-resize";
            return;
        }
        event.stopPropagation();
        const { box, held, from } = this.drag;
        this.drag.to = dragged(box, held, from, this.place(event), this.view.width, this.view.height);
        this.draw();
    }

    end(event) {
        if (!this.drag) return;
        event.stopPropagation();
        const box = this.drag.to;
        this.drag = null;
        if (box && Math.min(box[2] - box[0], box[3] - box[1]) >= SMALLEST) this.setBox(formatBox(box));
        else this.draw();
    }

    setBox(text) {
        const widget = this.node.widgets?.find(other => other.name === "face_box");
        if (!widget) return;
        widget.value = text;
        widget.callback?.(text);
        if (!this.source()) this.redrawLocally();
        this.node.setDirtyCanvas?.(true, true);
    }

    /** Where only a run can look for the face, a box is drawn at once nevertheless. */
    redrawLocally() {
        const view = this.view, face = parseBox(this.value("face_box"));
        if (view && face) {
            view.face = face;
            view.square = squareAround(face, this.value("crop_margin") ?? 0.4, view.width, view.height);
            view.message = "The face is where the box says.";
            view.source = "given";
        }
        this.draw();
        this.tell();
    }

    draw() {
        const { clientWidth: width, clientHeight: height } = this.canvas, dots = window.devicePixelRatio || 1;
        if (!width || !height) return;
        this.canvas.width = width * dots;
        this.canvas.height = height * dots;
        const pen = this.canvas.getContext("2d");
        pen.scale(dots, dots);
        if (!this.picture || !this.view) return;
        const { width: w, height: h } = this.view;
        this.canvas.dataset.shape = `${w}x${h}`;
        const scale = Math.min(width / w, height / h);
        this.fit = { scale, left: (width - w * scale) / 2, top: (height - h * scale) / 2 };
        pen.translate(this.fit.left, this.fit.top);
        pen.scale(scale, scale);
        pen.drawImage(this.picture, 0, 0, w, h);
        let { face, square } = this.view;
        if (this.drag?.to) {
            face = this.drag.to;
            square = squareAround(face, this.value("crop_margin") ?? 0.4, w, h);
        }
        if (square) this.outline(pen, square, w, h);
        const line = 1.5 / scale;
        pen.font = `${13 / scale}px sans-serif`;
        (this.view.faces ?? []).forEach(([x0, y0, x1, y1], i, all) => {
            pen.lineWidth = line;
            pen.strokeStyle = COLOURS.other;
            pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
            if (all.length > 1) {
                pen.fillStyle = COLOURS.other;
                pen.fillText(String(i + 1), x0 + 3 / scale, y0 + 13 / scale);
            }
        });
        if (face) {
            pen.lineWidth = 2 * line;
            pen.strokeStyle = this.view.source === "assumed" && !this.drag ? COLOURS.assumed : COLOURS.face;
            pen.setLineDash([6 / scale, 4 / scale]);
            pen.strokeRect(face[0], face[1], face[2] - face[0], face[3] - face[1]);
            pen.setLineDash([]);
        }
    }

    /** What does not move is darker. */
    outline(pen, [left, top, side], width, height) {
        pen.fillStyle = "rgba(0, 0, 0, 0.5)";
        pen.beginPath();
        pen.rect(0, 0, width, height);
        pen.rect(left, top, side, side);
        pen.fill("evenodd");
        pen.lineWidth = 2.5 / this.fit.scale;
        pen.strokeStyle = COLOURS.square;
        pen.strokeRect(left, top, side, side);
    }
}

/** "folder/name.png [output]" as ComfyUI's /view takes it. */
function annotated(text) {
    const found = /^(.*?)\s*(?:\[(input|output|temp)\])?$/.exec(text), cut = found[1].lastIndexOf("/");
    return { filename: found[1].slice(cut + 1), subfolder: cut < 0 ? "" : found[1].slice(0, cut), type: found[2] ?? "input" };
}

app.registerExtension({
    name: "FADA.Face",
    nodeCreated(node) {
        if (node.comfyClass !== "FADAEncode") return;
        const view = new FaceView(node);
        const options = { serialize: false, hideOnZoom: false, getMinHeight: () => 230 };
        const widget = node.addDOMWidget("fada_face", "fada_face", view.element, options);
        widget.serialize = false;
        const { onExecuted, onRemoved } = node;
        node.onExecuted = function (output) {
            onExecuted?.apply(this, arguments);
            if (output?.fada_face?.length) view.executed(output.fada_face);
        };
        node.onRemoved = function () {
            onRemoved?.apply(this, arguments);
            view.remove();
        };
    },
});
