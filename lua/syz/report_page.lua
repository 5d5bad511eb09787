--- The look of a report: its style sheet and the few lines of script, both put into the page.

local page = {}

page.style = [[
:root{--bg:#fbfaf8;--card:#fff;--ink:#1d1b1a;--soft:#6d6762;--line:#e6e1da;--accent:#c2571a;--before:#a39c94;
--up:#2f7d4f;--stop:#b3261e;--radius:12px}
@media(prefers-color-scheme:dark){:root{--bg:#161514;--card:#1f1e1c;--ink:#eeebe6;--soft:#a09a92;--line:#35322e;
--accent:#ef8a4c;--before:#77716a;--up:#79c596;--stop:#f2857d}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1200px;margin:0 auto;padding:36px 24px 72px}
h1{font-size:34px;line-height:1.15;margin:0;letter-spacing:-.02em}
h2{font-size:19px;margin:48px 0 14px;letter-spacing:-.01em}
p{margin:6px 0}.soft{color:var(--soft)}
code,pre,.mono{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
pre{background:var(--card);border:1px solid var(--line);border-radius:var(--radius);padding:14px 16px;overflow:auto}
.status{display:inline-block;border:1px solid currentColor;border-radius:99px;padding:1px 10px;font-size:13px;
color:var(--accent)}.status.finished{color:var(--up)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:12px;margin-top:24px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:var(--radius);padding:14px 16px}
.tile b{display:block;font-size:24px;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile .from{color:var(--soft);font-weight:400;font-size:17px}.tile .name{color:var(--soft);font-size:13px;
overflow-wrap:anywhere}.tile .delta{font-size:13px;color:var(--soft);font-variant-numeric:tabular-nums}
.bar{display:flex;flex-wrap:wrap;gap:10px 18px;align-items:center;margin:0 0 14px}
.seg{display:inline-flex;border:1px solid var(--line);border-radius:9px;overflow:hidden;background:var(--card)}
.seg button{border:0;background:none;color:var(--soft);font:inherit;font-size:14px;padding:6px 14px;cursor:pointer}
.seg button[aria-pressed=true]{background:var(--ink);color:var(--bg)}
.key{font-size:13px;color:var(--soft)}.key i{display:inline-block;width:18px;height:4px;border-radius:2px;
margin:0 6px 3px 0;background:var(--before)}.key i.after{background:var(--accent);margin-left:12px}
input[type=range]{accent-color:var(--accent);width:220px;max-width:100%}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:20px 18px}
.pairs figure,.single figure{margin:0;min-width:0}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.cell{width:100%;background-repeat:no-repeat;border-radius:7px;background-color:var(--card)}
.cell.pixel{image-rendering:pixelated}
.pair .edge{height:3px;border-radius:2px;background:var(--before)}.pair .edge.after{background:var(--accent)}
figcaption{font-size:13px;line-height:1.35;margin-top:5px;color:var(--soft);overflow-wrap:anywhere}
.wipe .pairs{grid-template-columns:repeat(auto-fill,minmax(200px,1fr))}
.wipe .pair{grid-template-columns:1fr;cursor:ew-resize}.wipe .pair .edge{display:none}
.wipe .pair .cell{grid-area:1/1}.wipe .pair .cell.after{clip-path:inset(0 0 0 var(--cut,50%))}
.single{display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));gap:14px}
.strip{overflow-x:auto}.strip table{border-spacing:4px;border-collapse:separate}
.strip td{min-width:76px;width:110px;padding:0}.strip th{font-size:12px;font-weight:500;color:var(--soft);
text-align:left;padding:0}.strip th.kept{color:var(--up);font-weight:600}
.strip th[scope=row]{min-width:110px;max-width:180px;padding-right:8px;line-height:1.3}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:14px}
.panel{background:var(--card);border:1px solid var(--line);border-radius:var(--radius);padding:12px 12px 4px;
min-width:0}
.panel header{display:flex;justify-content:space-between;gap:10px;padding:0 4px;font-size:13px}
.panel header b{font-weight:600;overflow-wrap:anywhere}.panel header span{color:var(--soft);white-space:nowrap;
font-variant-numeric:tabular-nums}
.chart{width:100%;height:auto;display:block}.chart text{font-size:10.5px;fill:var(--soft)}
.chart .y{text-anchor:end}.chart .x{text-anchor:middle}.chart .grid{stroke:var(--line);stroke-width:1}
.chart path{fill:none;stroke:var(--accent);stroke-width:1.8;stroke-linejoin:round}
.chart .at text{paint-order:stroke;stroke:var(--card);stroke-width:3px}
.chart .at line{stroke:var(--soft);stroke-dasharray:3 3}.chart .at text{font-size:10px}
.chart .kept line{stroke:var(--up)}.chart .kept text{fill:var(--up)}
.chart .kept circle{fill:none;stroke:var(--up);stroke-width:2}
.chart .stopped line{stroke:var(--stop)}.chart .stopped text{fill:var(--stop)}
.chart .level line{stroke:var(--stop);stroke-dasharray:1 3}.chart .level text{fill:var(--stop);font-size:10px}
.panel.cause{border-color:var(--stop)}.why{font-size:12.5px;line-height:1.4;color:var(--stop);margin:2px 4px 8px}
.verdict{border-left:3px solid var(--stop);padding:6px 0 6px 14px;margin:18px 0 0;max-width:78ch}
.verdict.kept{border-color:var(--up)}
.chart .raw{stroke-width:1;opacity:.3}.chart .dot{fill:var(--accent)}
.chart .mark{fill:var(--card);stroke:var(--accent);stroke-width:2;visibility:hidden}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:var(--radius);background:var(--card)}
.scroll table{width:100%;border-collapse:collapse;font-size:14px}
.scroll th,.scroll td{text-align:left;padding:7px 14px;border-bottom:1px solid var(--line);vertical-align:top}
.scroll tr:last-child td{border-bottom:0}.scroll th{font-weight:550;color:var(--soft);font-size:13px}
.scroll .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.scroll td.wrap{overflow-wrap:anywhere;min-width:130px}
.two{display:grid;grid-template-columns:1fr 1fr;gap:0 28px}.two>section{min-width:0}
details{margin-top:14px}summary{cursor:pointer;font-size:15px;padding:4px 0}summary::marker{color:var(--soft)}
details[open]>summary{margin-bottom:10px}
footer{margin-top:56px;font-size:13px;color:var(--soft)}
@media(max-width:760px){main{padding:22px 14px 48px}h1{font-size:27px}h2{margin-top:36px}.two{grid-template-columns:1fr}
.pairs{grid-template-columns:repeat(auto-fill,minmax(165px,1fr));gap:14px 12px}.tiles{grid-template-columns:1fr 1fr}
.tile{padding:10px 12px}.tile b{font-size:19px}.tile .from{font-size:14px}
.wipe .pairs{grid-template-columns:1fr 1fr}.single{grid-template-columns:1fr 1fr 1fr}}
]]

page.script = [[
(function(){
var box=document.querySelector('.compare');
if(box){
  var range=box.querySelector('input'),buttons=box.querySelectorAll('.seg button');
  var cut=function(v){range.value=v;box.style.setProperty('--cut',v+'%')};
  buttons.forEach(function(b){b.addEventListener('click',function(){
    buttons.forEach(function(o){o.setAttribute('aria-pressed',o===b)});
    var wipe=b.dataset.mode==='wipe';box.classList.toggle('wipe',wipe);range.hidden=!wipe;
    if(wipe)cut(50);
  })});
  range.addEventListener('input',function(){cut(range.value)});
  box.querySelectorAll('.pair').forEach(function(p){
    p.addEventListener('pointermove',function(e){
      if(!box.classList.contains('wipe'))return;
      var r=p.getBoundingClientRect();
      p.style.setProperty('--cut',Math.max(0,Math.min(100,(e.clientX-r.left)/r.width*100))+'%');
    });
    p.addEventListener('pointerleave',function(){p.style.removeProperty('--cut')});
  });
}
document.querySelectorAll('.panel').forEach(function(panel){
  var svg=panel.querySelector('svg'),mark=svg.querySelector('.mark'),out=panel.querySelector('header span');
  var last=out.textContent,points=mark.dataset.points.split(';').map(function(s){return s.split(',')});
  svg.addEventListener('pointermove',function(e){
    var r=svg.getBoundingClientRect(),x=(e.clientX-r.left)/r.width*svg.viewBox.baseVal.width;
    var best=points.reduce(function(a,b){return Math.abs(b[0]-x)<Math.abs(a[0]-x)?b:a});
    mark.setAttribute('cx',best[0]);mark.setAttribute('cy',best[1]);mark.style.visibility='visible';
    out.textContent='step '+best[2]+': '+best[3];
  });
  svg.addEventListener('pointerleave',function(){mark.style.visibility='hidden';out.textContent=last});
});
})();
]]

--- Text made safe for HTML, in content and in quoted attributes.
---@param s any
---@return string
function page.escape(s)
  return (tostring(s):gsub('[&<>"\']', { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;",
                                         ["'"] = "&#39;" }))
end

--- The whole document.
---@param title string
---@param extra_style string
---@param body string
---@return string
function page.document(title, extra_style, body)
  return table.concat {
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n',
    '<meta name="viewport" content="width=device-width,initial-scale=1">\n',
    '<meta name="color-scheme" content="light dark">\n',
    "<title>", page.escape(title), "</title>\n<style>\n", page.style, extra_style, "</style></head>\n",
    "<body><main>\n", body, "\n</main>\n<script>\n", page.script, "</script></body></html>\n",
  }
end

return page
