"""Theme, style sheet and script of the demo. It uses system fonts and fetches nothing."""

import gradio as gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Grey with one blue; light or dark as the system is set."""
    hues = {"primary_hue": "blue", "secondary_hue": "slate", "neutral_hue": "slate"}
    return gr.themes.Base(**hues, font=SANS, font_mono=MONO, radius_size="md").set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_placeholder_color="*neutral_500",
        checkbox_label_background_fill="white",
        checkbox_label_background_fill_dark="*neutral_800",
        checkbox_label_border_width="1px",
        block_border_width="1px",
        block_shadow="none",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )


CSS = """
/* The width is the window's, whatever stands in the page and whether or not it is so long that it scrolls. */
html { scrollbar-gutter: stable; }
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; padding: 0 !important; }
.gradio-container .main.app { padding: 0 clamp(12px, 3vw, 20px) 28px !important; }
.gradio-container main { width: 100%; }
.gradio-container main :is(.column, .row) { min-width: 0 !important; }
.gradio-container .html-container { padding: 0; }
.vt-head { display: flex; justify-content: space-between; align-items: flex-end; gap: 16px; padding: 18px 0 12px;
  border-bottom: 1px solid var(--border-color-primary); }
.vt-head > div { display: flex; align-items: baseline; gap: 12px; }
.vt-head h1 { font-size: 22px; font-weight: 650; letter-spacing: -.02em; margin: 0; }
.vt-head p { margin: 0; color: var(--body-text-color-subdued); font-size: 14px; }
.vt-model { display: flex; flex-wrap: wrap; justify-content: flex-end; gap: 0 10px; min-width: 0; }
.vt-model b { color: var(--body-text-color); font-weight: 600; overflow-wrap: anywhere; }

#file { border-style: dashed; background: var(--background-fill-primary); min-height: 0; }
#file .wrap { font-size: 0; color: var(--body-text-color-subdued); gap: 8px; }
#file .wrap .icon-wrap { width: 26px; }
#file .wrap::after { content: "Drop or paste a picture or a PDF, or click to choose"; font-size: 15px; }
.vt-left:has(#picture img) #file { height: 46px !important; }
.vt-left:has(#picture img) #file button { height: 44px !important; }
.vt-left:has(#picture img) #file .wrap { min-height: 0; height: 44px; padding: 0 0 6px; justify-content: center; }
.vt-left:has(#picture img) #file .icon-wrap, .vt-left:has(#picture img) #file .or { display: none; }
.vt-left:has(#picture img) #file .wrap::after { content: "Another picture or PDF"; font-size: 14px; }
#picture img { max-height: 62vh; object-fit: contain; background: var(--background-fill-primary); }
#pager { align-items: center; gap: 8px; flex-wrap: nowrap; }
#pager button { min-width: 44px; flex: 0 0 44px; }

#task .wrap { gap: 6px; }
#task label { padding: 5px 13px; gap: 0; border-radius: 999px; font-size: 14px; }
#task label span { margin: 0; }
#task input { position: absolute; opacity: 0; width: 0; }
#task label:has(input:focus-visible) { outline: 2px solid var(--primary-500); outline-offset: 1px; }
#task label.selected { background: var(--primary-600); border-color: var(--primary-600); color: white; }
#ask { gap: 10px; }
#words { align-items: stretch; gap: 8px; flex-wrap: nowrap; }
#words button { flex: 0 0 96px; min-width: 96px; }
#words:not(:has(#prompt)) button { flex: 1 1 auto; }
.vt-warning { margin: 0; padding: 7px 12px; font-size: 14px; color: #704300; border-radius: var(--radius-md);
  background: #fff6e0; border: 1px solid #ecd9a6; }
.dark .vt-warning { color: #f0cf85; background: #2f2610; border-color: #5b4a1c; }

#answers { background: var(--background-fill-primary); border: 1px solid var(--border-color-primary);
  border-radius: var(--radius-md); padding: 4px 14px 12px; gap: 10px; }
/* Gradio writes overflow: visible into the element. */
#answer { min-height: 190px; max-height: 68vh; overflow: hidden auto !important; }
.vt-text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 16px; line-height: 1.55; }
.vt-live::after { content: "▍"; color: var(--primary-500); animation: vt-blink 1s steps(2) infinite; }
.vt-empty { color: var(--body-text-color-subdued); margin: 0; }
.vt-markdown { font-size: 16px; line-height: 1.55; overflow-x: auto; overflow-wrap: anywhere; }
.vt-markdown :is(h1, h2, h3, h4) { font-weight: 650; line-height: 1.25; margin: .7em 0 .35em; }
.vt-markdown h1 { font-size: 1.5em; } .vt-markdown h2 { font-size: 1.25em; } .vt-markdown h3 { font-size: 1.1em; }
.vt-markdown > :first-child { margin-top: 0 !important; }
.vt-markdown p { margin: .5em 0; }
.vt-markdown ul { list-style: disc; padding-left: 1.4em; } .vt-markdown ol { list-style: decimal; padding-left: 1.6em; }
.vt-markdown pre, .vt-markdown code { font-family: var(--font-mono); font-size: .9em; white-space: pre-wrap; }
.vt-markdown blockquote { border-left: 3px solid var(--border-color-primary); padding-left: 12px; margin: .5em 0; }
.vt-markdown table { border-collapse: collapse; font-size: 15px; }
.vt-markdown :is(table, tr) { border: 0 !important; }
.vt-markdown :is(th, td) { padding: 5px 18px 5px 0 !important; text-align: left; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
.vt-markdown :is(th, td) { overflow-wrap: break-word; }
.vt-markdown th { font-weight: 600; color: var(--body-text-color-subdued); }
.vt-markdown math { overflow-x: auto; }
.vt-markdown code.bad { color: #93180f; } .dark .vt-markdown code.bad { color: #ffb4ab; }
.vt-drawn { max-width: 100%; max-height: 50vh; background: white; border-radius: 4px; margin-bottom: 8px; }
.vt-changed { position: relative; display: inline-block; max-width: 100%; --vt-cut: 50%; }
.vt-changed img { display: block; max-width: 100%; max-height: 60vh; border-radius: 4px; margin: 0; }
.vt-changed .vt-after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--vt-cut)); }
.vt-changed input { width: 100%; margin-top: 8px; accent-color: var(--primary-500); }
#source textarea { font-family: var(--font-mono); font-size: 14px; border: 0; box-shadow: none; padding: 0; }
#source, #source :is(label, .block, .input-container) { padding: 0; border: 0 !important; background: none !important; }
#answers .form { background: none; border: 0; }
#source label > span { position: absolute; opacity: 0; }
#source textarea { border: 0 !important; background: none !important; }

.vt-status { margin: 0; font-size: 13.5px; color: var(--body-text-color-subdued); display: flex; flex-wrap: wrap;
  gap: 4px 10px; align-items: center; }
.vt-stop { color: #9a5b00; font-weight: 600; } .dark .vt-stop { color: #e3b341; }
.vt-save { margin: 6px 0 0; font-size: 13.5px; color: var(--body-text-color-subdued); display: flex; gap: 10px;
  align-items: baseline; }
.vt-save a { margin: 0 !important; padding: 0 !important; font-size: inherit;
  color: var(--primary-600); text-decoration: underline; } .dark .vt-save a { color: var(--primary-400); }
.vt-markdown td.vt-bad { color: #93180f; } .dark .vt-markdown td.vt-bad { color: #ffb4ab; }
#blocks { max-height: 68vh; overflow: hidden auto !important; }
#blocks td { vertical-align: top; }
#documents { margin-top: 4px; background: var(--background-fill-primary); }
.vt-error { margin: 0; padding: 9px 12px; overflow-wrap: anywhere; color: #93180f;
  border-radius: var(--radius-md); font-size: 14.5px;
  background: #fdecea; border: 1px solid #f3c4bf; }
.dark .vt-error { color: #ffb4ab; background: #3b1512; border-color: #6d2a24; }
.vt-dot { width: 8px; height: 8px; border-radius: 50%; background: var(--primary-500);
  animation: vt-blink 1s ease-in-out infinite alternate; }
@keyframes vt-blink { to { opacity: .2; } }
@media (prefers-reduced-motion: reduce) { .vt-dot, .vt-live::after { animation: none; } }

#forget { align-self: flex-start; width: auto; flex: none; }
.vt-turns h2, .vt-examples h2 { font-size: 14px; font-weight: 600; color: var(--body-text-color-subdued);
  margin: 8px 0; }
.vt-turns details { border-top: 1px solid var(--border-color-primary); padding: 8px 2px; font-size: 14.5px; }
.vt-turns summary { cursor: pointer; overflow-wrap: anywhere; }
.vt-turns .vt-text { font-size: 14.5px; padding: 6px 0 0; }
.vt-examples h2 { margin-top: 14px; }
#examples { gap: 12px; }
#examples button { flex-direction: column; align-items: stretch; padding: 8px; gap: 6px; font-size: 14px;
  font-weight: 500; background: var(--background-fill-primary); border: 1px solid var(--border-color-primary); }
#examples button:hover { border-color: var(--primary-500); }
#examples button img { width: 100%; height: 96px; object-fit: contain; margin: 0; background: white;
  border-radius: 4px; }
/* In one column: what to do, the picture, its answer. */
@media (max-width: 720px) {
  .vt-head { flex-direction: column; align-items: flex-start; gap: 4px; }
  .vt-model { justify-content: flex-start; }
  #sides { flex-direction: column; flex-wrap: nowrap; align-items: stretch; }
  .vt-side { display: contents; }
  #task, #ask { order: 1; } #picture { order: 2; } #pager { order: 3; } #answers { order: 4; } #before { order: 5; }
  #picture img { max-height: 40vh; }
  #task label { padding: 4px 10px; font-size: 13.5px; }
  #words button { flex-basis: 78px; min-width: 78px; }
  #examples { flex-wrap: wrap; } #examples button { flex: 1 1 40%; min-width: 40%; }
}
"""

# Gradio's file field handles drops on itself; a paste, or a drop elsewhere, is passed to it.
SCRIPT = """
() => {
  const hand = (files) => {
    const input = document.querySelector("#file input[type=file]");
    if (!input || !files || !files.length) return false;
    const data = new DataTransfer();
    data.items.add(files[0]);
    input.files = data.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  };
  document.addEventListener("paste", (event) => {
    if (event.clipboardData && hand(event.clipboardData.files)) event.preventDefault();
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.target.closest && event.target.closest("#file")) return;
    event.preventDefault();
    if (event.dataTransfer) hand(event.dataTransfer.files);
  });
}
"""
