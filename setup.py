"The package's metadata, read from settings.ini so that it stands in one place."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).resolve().parent
config = ConfigParser(interpolation=None)
config.read(here/"settings.ini", encoding="utf-8")
ini = config["DEFAULT"]


def lines(text: str) -> list[str]: return [line.strip() for line in text.splitlines() if line.strip()]


low, high = (int(ini[key].split(".")[1]) for key in ("min_python", "max_python"))
setup(
    version=ini["version"],
    description=ini["description"],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=ini["author"],
    license_expression=ini["license"],
    license_files=["LICENSE"],
    keywords=ini["keywords"].split(),
    python_requires=f">={ini['min_python']}",
    install_requires=lines(ini["requirements"]),
    extras_require={kind: lines(ini[f"{kind}_requirements"]) for kind in ("app", "serve", "scale", "dev")},
    packages=["coursekit"],
    package_data={"coursekit": ["datasets.toml", "photographs.zip", "questions.toml", "service.html",
                                "worksheet.html"]},
    entry_points={"console_scripts": ["coursekit = coursekit.cli:main"]},
    project_urls={"Source": ini["git_url"]} if ini["git_url"] else {},
    classifiers=[
        "Framework :: Jupyter",
        "Intended Audience :: Education",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(low, high + 1)),
    ],
)
