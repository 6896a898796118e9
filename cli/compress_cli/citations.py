"""What to cite: BibTeX entries and which of them a method stands on."""

from __future__ import annotations

from collections.abc import Mapping


def _entry(kind: str, key: str, **fields: str) -> str:
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{body}\n}}"


_ALL = (
    (
        "smoea",
        _entry(
            "article",
            "smoea",
            author="Li, Xuhua and Sun, Weize and Huang, Lei and Chen, Shaowu",
            title="Sub-network Multi-objective Evolutionary Algorithm for Filter Pruning",
            journal="arXiv preprint arXiv:2211.01957",
            year="2022",
        ),
    ),
    (
        "l1",
        _entry(
            "inproceedings",
            "l1",
            author="Li, Hao and Kadav, Asim and Durdanovic, Igor and Samet, Hanan and Graf, Hans Peter",
            title="Pruning Filters for Efficient {ConvNets}",
            booktitle="International Conference on Learning Representations",
            year="2017",
        ),
    ),
    (
        "bicnn",
        _entry(
            "article",
            "bicnn",
            author="Louati, Hassen and Louati, Ali and Bechikh, Slim and Kariri, Elham",
            title="Joint filter and channel pruning of convolutional neural networks as a bi-level optimization problem",
            journal="Memetic Computing",
            year="2024",
            doi="10.1007/s12293-024-00406-6",
        ),
    ),
    (
        "cemba",
        _entry(
            "article",
            "cemba",
            author="Said, Rihab and Elarbi, Maha and Bechikh, Slim and Ben Said, Lamjed",
            title="Solving combinatorial bi-level optimization problems using multiple populations and migration schemes",
            journal="Operational Research",
            year="2021",
        ),
    ),
    (
        "cluster",
        _entry(
            "article",
            "cluster",
            author="Sun, Chuanmeng and Chen, Jiaxin and Wu, Zhibo and Li, Yong and Ma, Tiehua",
            title="A Clustering Pruning Method Based on Multidimensional Channel Information",
            journal="Neural Processing Letters",
            year="2024",
            doi="10.1007/s11063-024-11684-z",
        ),
    ),
    (
        "csgd",
        _entry(
            "inproceedings",
            "csgd",
            author="Ding, Xiaohan and Ding, Guiguang and Guo, Yuchen and Han, Jungong",
            title="Centripetal {SGD} for Pruning Very Deep Convolutional Networks with Complicated Structure",
            booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
            year="2019",
        ),
    ),
    (
        "csgd2023",
        _entry(
            "article",
            "csgd2023",
            author="Hao, Tianxiang and Ding, Xiaohan and Han, Jungong and Guo, Yuchen and Ding, Guiguang",
            title="Manipulating Identical Filter Redundancy for Efficient Pruning on Deep and Complicated {CNN}",
            journal="IEEE Transactions on Neural Networks and Learning Systems",
            year="2023",
        ),
    ),
    (
        "obs",
        _entry(
            "inproceedings",
            "obs",
            author="Hassibi, Babak and Stork, David G.",
            title="Second order derivatives for network pruning: Optimal Brain Surgeon",
            booktitle="Advances in Neural Information Processing Systems",
            year="1992",
        ),
    ),
    (
        "slimming",
        _entry(
            "inproceedings",
            "slimming",
            author="Liu, Zhuang and Li, Jianguo and Shen, Zhiqiang and Huang, Gao and Yan, Shoumeng and Zhang, Changshui",
            title="Learning Efficient Convolutional Networks through Network Slimming",
            booktitle="IEEE International Conference on Computer Vision",
            year="2017",
        ),
    ),
    (
        "shade",
        _entry(
            "inproceedings",
            "shade",
            author="Tanabe, Ryoji and Fukunaga, Alex",
            title="Success-History Based Parameter Adaptation for Differential Evolution",
            booktitle="IEEE Congress on Evolutionary Computation",
            year="2013",
        ),
    ),
    (
        "nsga2",
        _entry(
            "article",
            "nsga2",
            author="Deb, Kalyanmoy and Pratap, Amrit and Agarwal, Sameer and Meyarivan, T.",
            title="A Fast and Elitist Multiobjective Genetic Algorithm: {NSGA-II}",
            journal="IEEE Transactions on Evolutionary Computation",
            volume="6",
            number="2",
            pages="182--197",
            year="2002",
        ),
    ),
    (
        "pymoo",
        _entry(
            "article",
            "pymoo",
            author="Blank, Julian and Deb, Kalyanmoy",
            title="pymoo: Multi-Objective Optimization in {Python}",
            journal="IEEE Access",
            volume="8",
            pages="89497--89509",
            year="2020",
        ),
    ),
    (
        "depgraph",
        _entry(
            "inproceedings",
            "depgraph",
            author="Fang, Gongfan and Ma, Xinyin and Song, Mingli and Mi, Michael Bi and Wang, Xinchao",
            title="{DepGraph}: Towards Any Structural Pruning",
            booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
            year="2023",
        ),
    ),
    (
        "distillation",
        _entry(
            "article",
            "distillation",
            author="Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff",
            title="Distilling the Knowledge in a Neural Network",
            journal="arXiv preprint arXiv:1503.02531",
            year="2015",
        ),
    ),
    (
        "deepinversion",
        _entry(
            "inproceedings",
            "deepinversion",
            author="Yin, Hongxu and Molchanov, Pavlo and Alvarez, Jose M. and Li, Zhizhong and Mallya, Arun and Hoiem, Derek "
            "and Jha, Niraj K. and Kautz, Jan",
            title="Dreaming to Distill: Data-Free Knowledge Transfer via {DeepInversion}",
            booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition",
            year="2020",
        ),
    ),
)
CITATIONS: Mapping[str, str] = dict(_ALL)
"""Key -> BibTeX."""

OF_METHOD: Mapping[str, tuple[str, ...]] = {
    "smoea": ("smoea", "nsga2", "pymoo"),
    "bicnn": ("bicnn", "cemba", "pymoo"),
    "cluster": ("cluster", "shade"),
    "csgd": ("csgd", "csgd2023"),
    "obs": ("obs",),
    "global": ("slimming",),
    "uniform": ("l1",),
}
"""Method -> what its search stands on; a test holds this equal to the methods there are."""

OF_EVERY_RUN = ("depgraph", "distillation")
"""Coupling and recovery; without data, ``deepinversion`` as well."""
