// Style sheet of the Focus Point; colours follow ComfyUI's theme.

export const STYLE = `
.fine-defocus-focus { box-sizing: border-box; display: flex; flex-direction: column; gap: 5px; width: 100%;
  height: 100%; min-height: 0; overflow: hidden; font: 11px/1.35 system-ui, sans-serif; color: var(--input-text, #ddd);
  user-select: none; -webkit-user-select: none }
.fine-defocus-focus .stage { position: relative; flex: 1 1 0; min-height: 0; overflow: hidden; border-radius: 6px;
  background: #0b0b0c; cursor: crosshair; touch-action: none; outline: none }
.fine-defocus-focus .stage:focus-visible { box-shadow: inset 0 0 0 2px var(--p-primary-color, #5aa2ff) }
.fine-defocus-focus.locked .stage { cursor: not-allowed }
.fine-defocus-focus.empty .stage { cursor: default }
.fine-defocus-focus canvas.picture { position: absolute; pointer-events: none }
.fine-defocus-focus .marks { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none;
  overflow: hidden }
.fine-defocus-focus .marks .dark { stroke: #000a; stroke-width: 4.5; fill: none }
.fine-defocus-focus .marks .light { stroke: #fff; stroke-width: 1.75; fill: none }
.fine-defocus-focus .marks .dot { fill: #40f266; stroke: #000a; stroke-width: 1 }
.fine-defocus-focus .marks .second .dot { fill: #ffd24a }
.fine-defocus-focus .marks .second .light { stroke-dasharray: 4 3 }
.fine-defocus-focus .marks line { stroke: #fff9; stroke-width: 1.25; stroke-dasharray: 3 4 }
.fine-defocus-focus.locked .marks .dot { fill: #bbb }
.fine-defocus-focus .loupe { position: absolute; width: 92px; pointer-events: none; text-align: center;
  transition: opacity .12s; filter: drop-shadow(0 2px 5px #000a) }
.fine-defocus-focus .loupe canvas { display: block; box-sizing: border-box; width: 92px; height: 92px;
  border: 2px solid #fff; border-radius: 50%; background: #000 }
.fine-defocus-focus .loupe output { display: inline-block; margin-top: 4px; padding: 1px 7px; border-radius: 9px;
  background: #000d; color: #fff; white-space: nowrap; font-variant-numeric: tabular-nums }
.fine-defocus-focus .invite { position: absolute; inset: 0; display: flex; flex-direction: column; gap: 6px;
  align-items: center; justify-content: center; padding: 14px; text-align: center; color: #bbb }
.fine-defocus-focus .invite::before { content: ""; width: 34px; height: 34px; border: 2px solid #888;
  border-radius: 50%; background: radial-gradient(circle, #40f266 0 3px, transparent 3.5px) }
.fine-defocus-focus .summary { display: flex; gap: 8px; align-items: baseline; min-height: 16px; padding: 0 2px;
  white-space: nowrap; overflow: hidden }
.fine-defocus-focus .summary b { font-size: 13px; font-weight: 600; font-variant-numeric: tabular-nums }
.fine-defocus-focus .summary span { color: var(--descrip-text, #999); overflow: hidden; text-overflow: ellipsis }
.fine-defocus-focus .row { display: flex; flex-wrap: wrap; gap: 4px; align-items: center }
.fine-defocus-focus .aperture { flex-wrap: nowrap }
.fine-defocus-focus button { flex: 1 1 auto; height: 22px; padding: 0 6px; border: 1px solid var(--border-color, #444);
  border-radius: 5px; background: var(--comfy-input-bg, #222); color: inherit; font: inherit; cursor: pointer;
  white-space: nowrap }
.fine-defocus-focus button:hover:not(:disabled) { border-color: #888 }
.fine-defocus-focus button[aria-pressed=true] { border-color: #40b35c; background: #1d3a25; color: #b8f5c6 }
.fine-defocus-focus button:disabled { opacity: .45; cursor: default }
.fine-defocus-focus button:focus-visible, .fine-defocus-focus input:focus-visible {
  outline: 2px solid var(--p-primary-color, #5aa2ff); outline-offset: 1px }
.fine-defocus-focus .aperture b { flex: 0 0 42px; font-weight: 600; font-variant-numeric: tabular-nums }
.fine-defocus-focus .aperture input { flex: 1 1 auto; min-width: 40px; height: 16px; margin: 0;
  accent-color: #40b35c; cursor: pointer }
.fine-defocus-focus .aperture span { flex: 0 0 auto; color: var(--descrip-text, #999) }
.fine-defocus-focus .hint { min-height: 15px; padding: 0 2px; color: var(--descrip-text, #999); white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis }
.fine-defocus-focus .hint.warning { white-space: normal }
.fine-defocus-focus .hint.warning, .fine-defocus-focus .notes { color: #e8b339 }
.fine-defocus-focus .notes { flex: 0 0 auto; max-height: 60px; padding: 0 2px; overflow: auto; white-space: pre-line;
  user-select: text; -webkit-user-select: text }
dialog.fine-defocus-full { box-sizing: border-box; width: 96vw; height: 94vh; max-width: none; max-height: none;
  padding: 12px; border: 1px solid var(--border-color, #444); border-radius: 10px; background: var(--comfy-menu-bg, #1b1b1d) }
dialog.fine-defocus-full::backdrop { background: #000b }
dialog.fine-defocus-full .fine-defocus-focus { font-size: 13px }
`
