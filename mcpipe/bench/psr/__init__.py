"""PSRBench (arXiv:2512.01236): two to four subjects in one image, seven subsets, three dimensions."""
