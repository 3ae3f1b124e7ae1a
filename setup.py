"""What pyproject.toml cannot say: packages are found, and the cards go into the wheel with them."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["drin_jax*", "data_pipeline*"]),
        "drin_jax.configs",
    ],
    package_dir={"drin_jax.configs": "configs"},
)
