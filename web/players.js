// What ComfyUI's own players lack, in FADA's nodes: Load Audio plays the part that start and duration say; Video Combine
// shows every video of a batch, and no old player beside a new picture; and no player counts as a changed input.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const PLAYER = "video-preview"; // the frontend's widgets
const PICTURES = ["$$canvas-image-preview", "$$comfy_animation_preview"];

/** The frontend would send its player along as an input, and the node would run again for it. */
function keepPlayersOut(node) {
    const add = node.addDOMWidget;
    node.addDOMWidget = function (name) {
        const widget = add.apply(this, arguments);
        if (name === PLAYER) (widget.options ??= {}).serialize = false;
        return widget;
    };
}

const isVideo = file => /\.(mp4|webm)$/i.test(file?.filename ?? "");

function address({ filename, subfolder, type }) {
    return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

function remove(node, names) {
    for (const widget of node.widgets?.filter(widget => names.includes(widget.name)) ?? []) {
        widget.onRemove?.();
        node.widgets.splice(node.widgets.indexOf(widget), 1);
    }
}

/** Of what is shown of an earlier run, only what the new one will replace stays. */
function clear(node, keepsPlayer) {
    if (keepsPlayer) {
        remove(node, PICTURES);
        node.imgs = undefined;
    } else {
        remove(node, [PLAYER]);
        node.videoContainer?.replaceChildren();
        node.videoContainer = undefined;
        node.previewMediaType = "image";
    }
    node.setDirtyCanvas?.(true, true);
}

/** Of several videos the frontend's player takes the first; wait for it, and add the others. */
async function showAll(node, files) {
    for (let i = 0; i < 50 && !node.videoContainer?.firstChild; i++) await new Promise(done => setTimeout(done, 100));
    const box = node.videoContainer;
    if (!box || box.children.length >= files.length) return;
    Object.assign(box.style, { display: "grid", gridTemplateColumns: "repeat(auto-fit, minmax(120px, 1fr))", gap: "4px" });
    box.replaceChildren(
        ...files.map(file => {
            const video = document.createElement("video");
            Object.assign(video, { src: address(file), controls: true, loop: true, playsInline: true });
            video.style.cssText = "width:100%;height:100%;min-height:0;object-fit:contain";
            return video;
        }),
    );
}

function showWhatCame(node) {
    const { onExecuted } = node;
    node.onExecuted = function (output) {
        onExecuted?.apply(this, arguments);
        const files = output?.images ?? [];
        if (!files.length) return;
        const play = files.every(isVideo);
        clear(this, play);
        if (play && files.length > 1) showAll(this, files);
    };
}

// Sound. The players are <audio> elements of the frontend, one kind on the canvas, another in Vue nodes; events of all
// pass here.

function ownerOf(audio) {
    const graph = app.canvas?.graph ?? app.graph;
    const nodes = graph?.nodes ?? graph?._nodes ?? [];
    const id = audio.closest?.("[data-node-id]")?.dataset.nodeId;
    return nodes.find(
        node =>
            node.comfyClass === "FADALoadAudio" &&
            (id !== undefined
                ? String(node.id) === id
                : node.widgets?.some(widget => widget.name === "audioUI" && widget.element === audio)),
    );
}

function part(node, audio) {
    const value = name => Number(node.widgets?.find(widget => widget.name === name)?.value) || 0;
    const begin = value("start"), takes = value("duration"), whole = Number.isFinite(audio.duration) ? audio.duration : Infinity;
    return { begin: begin < whole ? begin : 0, end: takes ? Math.min(begin + takes, whole) : whole };
}

function hear({ target: audio, type }) {
    const node = audio instanceof HTMLAudioElement && ownerOf(audio);
    if (!node) return;
    const { begin, end } = part(node, audio), after = audio.currentTime >= end - 0.01;
    if (type === "timeupdate") {
        if (audio.paused || !after || end === audio.duration) return;
        audio.pause();
        audio.currentTime = begin;
    } else if (audio.currentTime < begin || after) audio.currentTime = begin;
}

app.registerExtension({
    name: "FADA.Players",
    setup() {
        for (const type of ["loadedmetadata", "play", "timeupdate"]) document.addEventListener(type, hear, true);
    },
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("FADA")) return;
        keepPlayersOut(node);
        if (node.comfyClass === "FADAVideoCombine") showWhatCame(node);
    },
});
