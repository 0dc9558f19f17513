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

/** Opening a graph, the frontend sets the mode, and takes away the room below it that the node had for its preview. */
function keepSize(node) {
    const { onConfigure } = node;
    node.onConfigure = function (saved) {
        onConfigure?.apply(this, arguments);
        if (saved?.size) this.setSize([...saved.size]);
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

const latest = new WeakMap(); // the files of each node's latest run

function plays(node, { filename }) {
    const video = node.videoContainer?.querySelector("video");
    return video && new URL(video.src).searchParams.get("filename") === filename;
}

/**
 * On a busy machine the frontend gives up on a video that takes some seconds to load: let it try again. Of several videos
 * its player takes the first; add the others.
 */
async function showAll(node, files) {
    latest.set(node, files);
    for (let i = 0; i < 600 && !plays(node, files[0]); i++) {
        await new Promise(done => setTimeout(done, 100));
        if (latest.get(node) !== files || !node.graph) return;
        if (window.LiteGraph?.vueNodesMode) return; // Vue nodes have another player
        if (i % 50 < 49 || node.isLoading) continue;
        node.images = undefined; // to the frontend, these are new ones
        node.setDirtyCanvas?.(true, true);
    }
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
        if (play) showAll(this, files);
    };
}

// A subgraph, such as our blueprint, shows what its FADA nodes preview and write: not every frontend does that.

const VIEW = "fada_view";

/** The node on the canvas that holds node "8:6", where that is one of ours. */
function hostOf(id) {
    const [outer, ...path] = String(id ?? "").split(":").map(Number);
    const host = (app.rootGraph ?? app.graph).getNodeById(outer);
    const inner = path.reduce((node, part) => node?.subgraph?.getNodeById(part), host);
    return path.length && inner?.comfyClass?.startsWith("FADA") ? host : null;
}

function showIn(host, element) {
    if (host.videoContainer || host.imgs?.length) return; // the frontend shows it
    let widget = host.widgets?.find(other => other.name === VIEW);
    if (!widget) {
        const box = document.createElement("div");
        box.style.cssText = "display:flex;width:100%;min-height:220px";
        const options = { serialize: false, hideOnZoom: false, getMinHeight: () => 230 };
        widget = host.addDOMWidget(VIEW, VIEW, box, options);
        widget.serialize = false;
    }
    element.style.cssText = "flex:1 1 0;min-width:0;object-fit:contain";
    widget.element.replaceChildren(element);
    host.setDirtyCanvas?.(true, true);
}

function previewed({ detail }) {
    const host = hostOf(detail.displayNodeId ?? detail.nodeId);
    if (!host) return;
    const picture = new Image();
    picture.onload = () => URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(detail.blob);
    showIn(host, picture);
}

/** Vue nodes show the last picture of the sampling, if it is still there, above the sampler's finished video. */
function dropPreview(id) {
    const stores = document.querySelector("#vue-app")?.__vue_app__?.config.globalProperties.$pinia?._s;
    if (window.LiteGraph?.vueNodesMode) stores?.get("nodeOutput")?.revokePreviewsByExecutionId?.(id);
}

function executed({ detail }) {
    const host = hostOf(detail.node), [file] = detail.output?.images ?? [];
    if (file?.filename.startsWith("fada_preview_")) dropPreview(detail.node);
    if (!host || !file || file.type === "temp") return;
    const element = document.createElement(isVideo(file) ? "video" : "img");
    Object.assign(element, { src: address(file), controls: true, loop: true, playsInline: true });
    showIn(host, element);
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
        api.addEventListener("b_preview_with_metadata", previewed);
        api.addEventListener("executed", executed);
        for (const type of ["loadedmetadata", "play", "timeupdate"]) document.addEventListener(type, hear, true);
    },
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("FADA")) return;
        keepPlayersOut(node);
        if (node.comfyClass === "FADASampler") keepSize(node);
        if (node.comfyClass === "FADAVideoCombine") showWhatCame(node);
    },
});
