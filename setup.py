"""The packages to install: `assets/` stands at the top of a checkout and inside `pruneviz` when installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["core*", "pruneviz*"]), "pruneviz.assets"],
    package_dir={"pruneviz.assets": "assets"},
    package_data={
        "": ["**/*.html", "templates/*.md"],
        "pruneviz.assets": ["*.css", "js/*.js", "published/*", "examples/*", "examples/*/*"],
    },
)
