"""Packages are listed one by one: the rooms are top-level folders, and tests or outputs must never be installed."""

from setuptools import setup

setup(
    name="rpn3d",
    version="0.2.0",
    description="Lung-nodule detection in chest CT on plain CPUs; 3-D Caffe nets to ONNX and OpenVINO",
    license="Apache-2.0",
    python_requires=">=3.11",
    py_modules=["rpn3d"],
    packages=[
        "bench",
        "caffe_models",
        "caffe_models.generators",
        "caffe_models.layers",
        "caffe_models.rpn",
        "commands",
        "convert",
        "prototxt",
        "runtime",
        "runtime.engines",
        "train",
    ],
    package_data={
        "prototxt": ["rpn3d/*.prototxt"],
        "caffe_models": ["*.caffemodel", "*.md"],
    },
    install_requires=[
        "connected-components-3d",
        "edt",
        "fill-voids",
        "h5py",
        "isal",
        "matplotlib",
        "numpy",
        "onnx",
        "openvino",
        "pydicom",
        "rich",
        "scipy",
        "SimpleITK",
        "typer",
    ],
    extras_require={
        "train": ["torch", "tensorboard"],
        "int8": ["nncf"],
        "bench": ["torch", "onnxruntime", "opencv-python-headless>=4.13,<5"],  # 5 has no Caffe importer any more
        "test": [
            "torch",
            "tensorboard",
            "nncf",
            "onnxruntime",
            "opencv-python-headless>=4.13,<5",
            "hypothesis",
            "pytest",
            "pytest-xdist",
            "mypy",
            "ruff",
        ],
    },
    entry_points={"console_scripts": ["rpn3d=rpn3d:main"]},
)
