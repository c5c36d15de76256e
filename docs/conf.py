"Sphinx configuration of the course site; `tools/build_site.py` assembles the sources and runs it."

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "tools")]

import api_pages  # noqa: E402
import lessons  # noqa: E402

ini = lessons.settings()
git_url = ini["git_url"].rstrip("/")
project, author, release = ini["title"], ini["author"], ini["version"]
copyright = ini["copyright"]
language = "en"
root_doc = "index"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "lesson_pages",
    "api_pages",
    "search_terms",
]
source_suffix = {".ipynb": "myst-nb", ".md": "myst-nb"}
suppress_warnings = [
    "toc.not_included"
]  # a file that a lesson links to is a page without being in the menu

# Notebooks are shown as they were run: building the site runs nothing.
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}  # site.js loads the player when a widget comes near
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "dollarmath", "html_image"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
myst_update_mathjax = False
myst_url_schemes = ["http", "https", "mailto"]

lesson_pages = {
    "symbols": api_pages.links(api_pages.package()),
    "git_url": git_url,
    "branch": ini["branch"],
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the parameter table has them
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries_show_parents = "hide"

# Sphinx's extension puts the formulas on the page, and this script beside those that have some; KaTeX (a seventh
# of MathJax) draws them, see site.js.
mathjax_path = "lib/katex.min.js"
mathjax_options = {"defer": "defer"}

html_baseurl = f"{ini['site_url'].rstrip('/')}/" if ini["site_url"] else ""

html_theme = "sphinx_book_theme"
html_title = project
templates_path = ["_templates"]
html_static_path = ["_static", "../_build/js"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_search_scorer = str(HERE / "scorer.js")
html_favicon = "_static/logo.svg"
html_logo = "_static/logo.svg"
html_show_sourcelink = False
html_use_index = False
html_domain_indices = False
html_context = {"default_mode": "auto"}  # without it the theme writes an error to the console
html_theme_options = {
    "logo": {"text": project},
    "search_as_you_type": True,
    "navbar_persistent": [],  # else there is a second search bar
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "use_download_button": False,  # the bar of a lesson has one
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if git_url:
    html_theme_options |= {
        "repository_url": git_url,
        "repository_branch": ini["branch"],
        "path_to_docs": "nbs",
        "use_repository_button": True,
        "use_issues_button": True,
    }
linkcheck_anchors = False
linkcheck_timeout = 20
copybutton_selector = 'div.cell_input pre, div[class*="highlight-"]:not(.output) pre'
