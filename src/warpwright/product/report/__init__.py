"""One self-contained HTML page by which a person judges a registration: read from a folder, drawn, written.

`run` reads what `register` left and its inputs; `checks`, `planes`, `tables` and `charts` turn that into values without any
HTML; `page` lays them into the template. `volumes` adds the images themselves and a viewer, which `vendor` holds.
"""

from warpwright.product.report.page import REPORT, write_report

__all__ = ["REPORT", "write_report"]
