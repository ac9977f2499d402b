"""The page's style sheet: system fonts, two sets of colours, one column on a phone."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{color-scheme:light dark;
--paper:#fff;--panel:#f6f7f9;--ink:#1b2330;--soft:#586375;--rule:#dde2e9;--blue:#2a62b4;
--good:#18754a;--good-back:#e8f4ee;--bad:#b4231c;--bad-back:#fbecea;--warn:#8a5800;
--warn-back:#fbf3e2}
@media(prefers-color-scheme:dark){:root{
--paper:#11151b;--panel:#181e26;--ink:#e5e9ef;--soft:#9ba7b7;--rule:#2c3541;--blue:#78adf6;
--good:#5cc792;--good-back:#14261e;--bad:#ff8b80;--bad-back:#2d1a1a;--warn:#eab255;
--warn-back:#2a2315}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
.wrap{max-width:1128px;margin:0 auto;padding:0 24px}
code,.mono,.graph text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",
monospace;font-size:.9em}
h1,h2,h3,p,dl,dd,ul,ol,figure{margin:0;padding:0}
h1{font-size:clamp(30px,5vw,44px);line-height:1.12;letter-spacing:-.02em;font-weight:700}
h2{font-size:21px;line-height:1.3;letter-spacing:-.01em;margin-bottom:6px}
h3{font-size:16px;line-height:1.4}
section{padding:30px 0}section+section{border-top:1px solid var(--rule)}
.note{color:var(--soft);font-size:14.5px;max-width:76ch;margin-bottom:16px}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}.off{color:var(--soft)}
header{padding:40px 0 34px;border-top:6px solid var(--tone);background:var(--tone-back)}
header[data-tone=good]{--tone:var(--good);--tone-back:var(--good-back)}
header[data-tone=bad]{--tone:var(--bad);--tone-back:var(--bad-back)}
header[data-tone=warn]{--tone:var(--warn);--tone-back:var(--warn-back)}
.kicker{color:var(--soft);font-size:14px;margin-bottom:14px}.kicker b{color:var(--ink)}
header h1{display:flex;gap:14px;align-items:center;color:var(--tone)}
header h1 svg{flex:none;width:1em;height:1em}
.lead{font-size:18px;line-height:1.5;color:var(--ink);max-width:68ch;margin-top:12px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:14px 28px;
margin-top:26px}
.tiles dt{color:var(--soft);font-size:13.5px}
.tiles dd{font-size:23px;line-height:1.3;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tiles small{display:block;font-size:13.5px;color:var(--soft);letter-spacing:0}
.proof{margin-top:26px;padding-top:18px;border-top:1px solid var(--rule);max-width:76ch}
.proof ul,.facts{margin:8px 0 0;padding-left:20px}.after{margin-top:20px}
.badge{display:inline-block;font-size:13px;font-weight:600;line-height:1.4;padding:1px 9px;
border:1px solid currentColor;border-radius:99px;white-space:nowrap}
.badge.solid{background:var(--ink);color:var(--paper);border-color:var(--ink)}
.cause{padding:16px 18px;background:var(--panel);border-left:4px solid var(--edge,var(--rule));
border-radius:0 6px 6px 0;margin-top:14px}
.cause.proven{--edge:var(--bad)}.cause.fitted{--edge:var(--warn)}
.cause h3{display:flex;flex-wrap:wrap;gap:4px 12px;align-items:baseline;font-size:18px}
.fix{font-size:17px;margin:6px 0 10px;max-width:76ch}.fix b{font-weight:600}
.meter{display:flex;align-items:center;gap:10px;font-size:14px;color:var(--soft);
font-variant-numeric:tabular-nums;flex-wrap:wrap}
.meter i{display:block;flex:0 0 160px;height:8px;border-radius:4px;background:var(--rule);
overflow:hidden}
.meter i i{height:8px;background:var(--ink);border-radius:0}
.pairs{display:flex;flex-wrap:wrap;gap:4px 22px;font-size:14px;margin-top:8px}
.pairs div{display:flex;gap:6px}.pairs dt{color:var(--soft)}
.strip{list-style:none;display:flex;flex-wrap:wrap;gap:6px;margin:4px 0 6px}
.strip li{font-size:13.5px;line-height:1.35;padding:5px 10px;border:1px solid var(--rule);
border-radius:5px;background:var(--panel)}
.strip b{font-weight:600}.strip span{display:block;font-size:12.5px}
.strip .first{border:2px solid var(--bad);padding:4px 9px}
.strip .after{border-style:dashed;color:var(--soft)}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;margin:0 -4px;padding:0 4px}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.45;
font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{text-align:left;vertical-align:top;padding:7px 14px 7px 0;white-space:nowrap;
border-bottom:1px solid var(--rule);font-weight:400}
td.long{white-space:normal;overflow-wrap:anywhere;min-width:240px}
.rows div{display:grid;grid-template-columns:minmax(110px,190px) 1fr;gap:4px 18px;font-size:14px;
padding:7px 0;border-bottom:1px solid var(--rule);font-variant-numeric:tabular-nums}
.rows div:first-child{border-top:1px solid var(--rule)}.rows dt{color:var(--soft)}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--soft);font-size:13px;vertical-align:bottom}
tbody th{font-weight:600}
.number{text-align:right}
details{border-top:1px solid var(--rule);padding:12px 0}
summary{cursor:pointer;font-size:15px}summary h3{display:inline}
summary small{color:var(--soft);font-size:14px;margin-left:8px;font-variant-numeric:tabular-nums}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));
gap:22px 26px;margin:12px 0 6px}
figure svg{display:block;width:100%;height:auto}
figcaption{font-size:13.5px;line-height:1.45;color:var(--soft);margin-top:4px}
svg text{fill:var(--soft);font-size:11.5px;font-variant-numeric:tabular-nums}
svg .axis{fill:var(--ink);font-size:12px}
svg path{fill:none}
.grid{stroke:var(--rule);stroke-width:1}.frame{stroke:var(--soft);stroke-width:1}
.reference{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
.dots{stroke-linecap:round;stroke-width:5}
.values{stroke:var(--blue);stroke-opacity:.55}
.failed{stroke:var(--bad);stroke-width:1.6}
.largest{stroke:var(--blue);stroke-width:2;stroke-linejoin:round}
.rms{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:4 3;stroke-linejoin:round}
.rms.dots,.largest.dots{stroke-width:6;stroke-dasharray:none}
.others{stroke:var(--soft);stroke-width:1;stroke-opacity:.45}.stem{stroke:var(--soft);
stroke-width:1;stroke-opacity:.5}
path.tolerance{stroke:var(--bad);stroke-width:1.4;stroke-dasharray:7 4}
text.tolerance{fill:var(--bad);font-size:11.5px}
.within{fill:var(--blue)}.equal{fill:var(--soft)}.over{fill:var(--bad)}
.key.largest{color:var(--blue)}.key.rms{color:var(--ink)}
.stacked>*+*{margin-top:22px}
.beside{display:grid;grid-template-columns:minmax(0,auto) minmax(0,1fr);gap:28px;
align-items:start}
figure svg.graph{display:block;width:auto;max-width:none;height:auto;margin:0}
.graph rect{fill:var(--panel);stroke:var(--soft);stroke-width:1}
.graph .input rect,.graph .output rect{fill:var(--paper);stroke-dasharray:3 2}
.graph .name{fill:var(--ink);font-size:12px;font-weight:600}.graph .detail{font-size:10.5px}
.graph .edge{stroke:var(--soft);stroke-width:1.3}.graph path.tip{fill:var(--soft)}
.graph .marked rect{stroke:var(--bad);stroke-width:2.4}.graph .marked .name{fill:var(--bad)}
footer{color:var(--soft);font-size:13.5px;padding:22px 0 44px;border-top:1px solid var(--rule)}
@media(max-width:760px){.beside{display:block}.beside>*+*{margin-top:22px}}
@media(max-width:520px){.wrap{padding:0 16px}header{padding:28px 0 26px}.lead{font-size:16.5px}
section{padding:24px 0}.tiles{grid-template-columns:1fr 1fr;gap:14px 18px}
.tiles dd{font-size:19px}}
@media print{body{font-size:12px}section{break-inside:avoid-page}.scroll{overflow:visible}}
"""
