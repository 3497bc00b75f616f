"""Words and style of the page of explanations."""

from __future__ import annotations

INTRODUCTION = """
<p>Colour and lines show what influenced the model, <b>not where disease is and not how far it extends</b>. Every map
has its own relative scale: the strongest place of a weak map looks like the strongest place of a strong one. A clear
area is not a healthy area.</p>
<dl>
<dt class="reliable">&#10003; Map reliable by its measures</dt><dd>Said of the map, not of the finding: it tells
what the model used, it is stable, and it lies where it can. The model can still be wrong.</dd>
<dt class="caution">! Use with caution</dt><dd>At least one figure is poor or could not be taken. Read the reasons
first.</dd>
<dt class="hidden">&#10005; Not shown</dt><dd>The map failed a check, so it is not drawn. The finding itself may
still be right or wrong.</dd>
</dl>
"""

STYLE = """
:root { color-scheme: dark; }
body { margin: 0 auto; max-width: 1500px; padding: 1rem; background: #101113; color: #e4e4e4;
  font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: .4rem 0; } h2 { font-size: 1.2rem; border-top: 1px solid #444; padding-top: 1rem; }
h3 { font-size: 1rem; margin: .6rem .8rem .4rem; }
.warning { background: #ffbf47; color: #111; padding: .4rem .8rem; font-weight: 700; margin: 0; }
.model, .small { color: #aaa; font-size: .85rem; }
.scale img { vertical-align: middle; width: 220px; height: 16px; border: 1px solid #666; } .scale span { color: #aaa; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; }
dt { font-weight: 700; } dd { margin: 0; }
dt.reliable, .badge.reliable { color: #8fd3a8; } dt.caution, .badge.caution { color: #ffbf47; }
dt.hidden, .badge.hidden { color: #ff9d8f; }
.finding { border-left: 5px solid #888; padding: .2rem .8rem; } .finding.above { border-color: #ffbf47; }
.note { background: #2b2413; border-left: 5px solid #ffbf47; padding: .5rem .8rem; margin: .6rem 0; }
.note ul { margin: .3rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1rem; align-items: start; }
article { background: #1a1c1f; border: 1px solid #333; padding-bottom: .4rem; }
article > * { margin-left: .8rem; margin-right: .8rem; }
article > img, .withheld { margin: 0; width: 100%; display: block; }
.withheld { display: flex; align-items: center; justify-content: center; background: #222; color: #999;
  font-size: 1.2rem; height: 5rem; }
.sides { display: flex; justify-content: space-between; font-weight: 700; margin-top: .2rem; }
.unsided { color: #ffbf47; margin-top: .2rem; }
article.caution { border-color: #6b5626; } article.hidden { border-color: #6b352d; }
.badge { font-weight: 700; margin-top: .6rem; margin-bottom: .2rem; }
article ul { padding-left: 1.1rem; margin-top: .2rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; } th, td { text-align: left; padding: .1rem .3rem; }
td + td, th + th { text-align: right; } tr + tr { border-top: 1px solid #2c2e31; } summary { cursor: pointer; }
@media print { body { background: #fff; color: #000; } }
"""
